// The X-Request-Id that a client sent. It is no list: two lines of it are none, as the replicas have it
// (transferd/web/calls.py). Nginx's own variable has the first of them, or both as one, by its version.
function sent(r) {
    const lines = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === 'x-request-id');
    // White space around a value is no part of it.
    return lines.length === 1 ? lines[0][1].replace(/^[ \t]+|[ \t]+$/g, '') : '';
}

export default { sent };
