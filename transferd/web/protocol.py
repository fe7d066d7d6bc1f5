"""A connection of a client. What is not even HTTP is answered with a problem as well."""

from aiohttp import web

from transferd.web.calls import origin_of
from transferd.web.problems import MEDIA_TYPE, Problem


class Protocol(web.RequestHandler):
    """aiohttp's handler of a connection, but for the answers that it would give by itself."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refuses, before there is a request for the application.

        aiohttp's own is plain text that repeats what was sent, and a stack trace in the log: any
        stranger could fill it. Raises ConnectionError if an answer has begun.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; nothing can be added to it")
        if status >= 500:
            self.log_exception("a connection failed", exc_info=exc)
        problem = Problem("malformed-request" if status < 500 else "internal-error")
        origin = origin_of(request)
        response = web.Response(
            status=problem.status,
            body=problem.body(origin),
            headers={"Content-Type": MEDIA_TYPE, "X-Request-Id": origin.request_id},
        )
        response.force_close()
        return response
