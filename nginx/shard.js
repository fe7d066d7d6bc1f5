// The key by which Nginx chooses a replica. Every replica can answer every request, but a wallet's requests are
// fastest on the replica that has its actor.

const SOURCE = /"source_wallet_id"\s*:\s*"([0-9a-fA-F-]{36})"/;
const PATH = /^\/wallets\/([0-9a-fA-F-]{36})(?:\/|$)/;

function of(r) {
    const named = r.headersIn['X-Wallet-Id'];
    if (named) {
        return named.toLowerCase();
    }
    const inPath = PATH.exec(r.uri);
    if (inPath) {
        return inPath[1].toLowerCase();
    }
    if (r.method === 'POST') {
        if (r.uri === '/transfers' || r.uri === '/holds') {
            const inBody = SOURCE.exec(r.requestText || '');
            if (inBody) {
                return inBody[1].toLowerCase();
            }
        }
        // A batch has many wallets; a reversal and the changes of a hold name none. By its key a repetition reaches the same replica,
        // where it joins the request in flight.
        const key = r.headersIn['Idempotency-Key'];
        if (key) {
            // "abc" and abc are the same key.
            return key.replace(/^"(.*)"$/, '$1');
        }
    }
    return r.variables.request_id;
}

export default { of };
