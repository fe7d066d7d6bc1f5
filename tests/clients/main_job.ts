// The main job of transferd, done through the types that openapi-typescript generates.
//
// Its test puts this program beside the generated types, type-checks both, and runs it: the first
// argument is the address of a service.

import createClient from "openapi-fetch";
import type { components, paths } from "./transferd.js";

type Wallet = components["schemas"]["Wallet"];
type Transfer = components["schemas"]["Transfer"];
type NewTransfer = components["schemas"]["NewTransfer"];

declare const process: { argv: [string, string, string] };
const client = createClient<paths>({ baseUrl: process.argv[2] });
const newKey = (): { "Idempotency-Key": string } => ({ "Idempotency-Key": crypto.randomUUID() });

function check(isTrue: boolean, what: string): asserts isTrue {
  if (!isTrue) throw new Error(`expected: ${what}`);
}

function the<Data>(answer: { data?: Data; error?: unknown }): Data {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

async function newWallet(userId: string, balance: number): Promise<Wallet> {
  return the(
    await client.POST("/wallets", {
      params: { header: newKey() },
      body: { user_id: userId, currency: "USD", initial_balance: balance, overdraft_limit: 500 },
    }),
  );
}

function transfer(source: Wallet, destination: Wallet, amount: number): NewTransfer {
  return {
    source_wallet_id: source.id,
    destination_wallet_id: destination.id,
    amount,
    currency: "USD",
    reference: "rent",
    metadata: { invoice: "2026-11" },
  };
}

async function pay(ada: Wallet, bob: Wallet): Promise<Transfer> {
  const body = transfer(ada, bob, 2_500);
  const dry = the(
    await client.POST("/transfers", {
      params: { query: { dry_run: true }, header: newKey() },
      body,
    }),
  );
  check(dry.status === "dry_run", "nothing posted");
  check(dry.source_balance_after === 7_500, "what would be left");

  const header = newKey();
  const first = await client.POST("/transfers", { params: { header }, body });
  const again = await client.POST("/transfers", { params: { header }, body });
  check(first.response.headers.get("Idempotent-Replayed") === null, "the first is executed");
  check(again.response.headers.get("Idempotent-Replayed") === "true", "the second is a replay");
  const paid = the(first);
  check(paid.status === "posted", "a posted transfer");
  const replayed = the(again);
  check(replayed.status === "posted" && replayed.id === paid.id, "the same transfer");
  check(paid.metadata.invoice === "2026-11", "its metadata");
  return paid;
}

async function beRefused(ada: Wallet, bob: Wallet): Promise<void> {
  const { error } = await client.POST("/transfers", {
    params: { header: newKey() },
    body: transfer(ada, bob, 9_000),
  });
  // The comparison of `code` is what gives the facts their types.
  check(error?.code === "insufficient-funds", "too little money");
  check(error.available === 8_000 && error.shortfall === 1_000, "how much is missing");

  const missing = await client.GET("/wallets/{id}", {
    params: { path: { id: crypto.randomUUID() } },
  });
  check(missing.error?.code === "wallet-not-found", "no such wallet");
}

async function payMany(ada: Wallet, bob: Wallet): Promise<void> {
  const transfers = [10, 99_000, 20].map((amount) => transfer(ada, bob, amount));
  const atomic = await client.POST("/transfers/batch", {
    params: { header: newKey() },
    body: { mode: "atomic", transfers },
  });
  check(atomic.error?.code === "batch-refused", "all or none");
  check(atomic.error.index === 1, "which one was refused");
  check(atomic.error.refusal.code === "insufficient-funds", "why");
  check(atomic.error.refusal.shortfall > 0, "how much is missing");

  const { results } = the(
    await client.POST("/transfers/batch", {
      params: { header: newKey() },
      body: { mode: "independent", transfers },
    }),
  );
  const posted = results.flatMap((result) => ("id" in result ? [result.id] : []));
  check(posted.length === 2, "two of three");

  const found: string[] = [];
  let cursor: string | undefined;
  do {
    const page = the(
      await client.GET("/transfers", {
        params: { query: { wallet_id: bob.id, limit: 2, cursor } },
      }),
    );
    found.push(...page.data.map((each) => each.id));
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined);
  check(found.length === 4 && new Set(found).size === 4, "every transfer once");
  check(found[0] === posted[1] && found[1] === posted[0], "the newest first");
}

async function giveBack(paid: Transfer): Promise<void> {
  const reverse = (amount: number) =>
    client.POST("/transfers/{id}/reversal", {
      params: { path: { id: paid.id }, header: newKey() },
      body: { amount },
    });
  const back = the(await reverse(500));
  check(back.kind === "reversal" && back.reverses_transfer_id === paid.id, "a reversal");
  const { error } = await reverse(2_001);
  check(error?.code === "reversal-exceeds-transfer" && error.left === 2_000, "what is left");
}

const user = the(await client.POST("/users", { body: { name: "Ada" } }));
const ada = await newWallet(user.id, 10_000);
const bob = await newWallet(user.id, 1);
const paid = await pay(ada, bob);
await beRefused(ada, bob);
await payMany(ada, bob);
await giveBack(paid);

// What is left out of a PATCH stays: the limit too.
const changed = the(
  await client.PATCH("/wallets/{id}", {
    params: { path: { id: ada.id } },
    body: { metadata: { label: "rent" } },
  }),
);
check(changed.metadata.label === "rent", "the new metadata");
check(changed.overdraft_limit === 500 && changed.status === "active", "the limit as it was");

const hook = the(
  await client.POST("/webhooks", {
    body: { url: "https://example.com/hooks", events: ["transfer.*"], wallet_id: bob.id },
  }),
);
check(hook.secret.startsWith("whsec_"), "a secret");
console.log("The main job is done.");
