// Sets, reads, lists and deletes secrets of a key vault.
//
// An ordinary program for a pod with a workload identity: it knows the vault's
// URL from its environment, and nothing else.
//
//	KEYVAULT_URL=https://NAME.vault.azure.net node vault-tour.mjs

import { DefaultAzureCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

const secrets = 30;
const client = new SecretClient(process.env.KEYVAULT_URL, new DefaultAzureCredential());

const first = await client.setSecret("tour", "one", { tags: { stop: "first" } });
const second = await client.setSecret("tour", "two", { contentType: "text/plain" });
console.log("current:", (await client.getSecret("tour")).value);
console.log("first version:", (await client.getSecret("tour", { version: first.properties.version })).value);
const versions = [];
for await (const v of client.listPropertiesOfSecretVersions("tour")) versions.push(v.version);
console.log("both versions are listed:",
  versions.length === 2 && versions.includes(first.properties.version) && versions.includes(second.properties.version));

const changed = await client.updateSecretProperties("tour", second.properties.version, { enabled: false });
console.log("enabled:", changed.enabled);
await refused("a disabled secret", () => client.getSecret("tour"));
await client.updateSecretProperties("tour", second.properties.version, { enabled: true });

for (let i = 0; i < secrets; i++) await client.setSecret(`page-${String(i).padStart(2, "0")}`, String(i));
const names = [];
let pages = 0;
for await (const page of client.listPropertiesOfSecrets().byPage({ maxPageSize: 7 })) {
  pages++;
  names.push(...page.map((s) => s.name).filter((n) => n.startsWith("page-")));
}
console.log("listed:", new Set(names).size, "of", names.length, "in several pages:", pages > 4);

await refused("a secret that is not there", () => client.getSecret("absent"));
await refused("a name that is none", () => client.setSecret("not_a_name", "x"));

const backup = await client.backupSecret("tour");
const deletion = await client.beginDeleteSecret("tour");
await deletion.pollUntilDone();
console.log("deleted:", (await client.getDeletedSecret("tour")).name);
await client.purgeDeletedSecret("tour");
console.log("restored:", (await client.restoreSecretBackup(backup)).name, (await client.getSecret("tour")).value);

const other = new SecretClient(process.env.OTHER_VAULT_URL ?? process.env.KEYVAULT_URL, new DefaultAzureCredential());
await refused("another vault", () => other.getSecret("tour"));

async function refused(what, call) {
  try {
    await call();
    console.log(`${what}: allowed`);
  } catch (e) {
    console.log(`${what}:`, e.statusCode, e.code);
  }
}
