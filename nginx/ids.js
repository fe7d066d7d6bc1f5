// The X-Request-Id that a client sent. The header is not a list, so Nginx and a replica
// (transferd/web/calls.py) ignore it if it has two lines. Nginx's own variable has the first line or all lines,
// depending on its version.
function sent(r) {
    const lines = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === 'x-request-id');
    // White space around a value does not belong to it.
    return lines.length === 1 ? lines[0][1].replace(/^[ \t]+|[ \t]+$/g, '') : '';
}

export default { sent };
