"""Sets, reads, lists and deletes secrets of a key vault.

An ordinary program for a pod with a workload identity: it knows the vault's
URL from its environment, and nothing else.

    KEYVAULT_URL=https://NAME.vault.azure.net python vault_tour.py
"""

import os

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

SECRETS = 30


def main():
    client = SecretClient(os.environ["KEYVAULT_URL"], DefaultAzureCredential())

    first = client.set_secret("tour", "one", tags={"stop": "first"})
    second = client.set_secret("tour", "two", content_type="text/plain")
    print("current:", client.get_secret("tour").value)
    print("first version:", client.get_secret("tour", first.properties.version).value)
    versions = {v.version for v in client.list_properties_of_secret_versions("tour")}
    print("both versions are listed:", versions == {first.properties.version, second.properties.version})

    changed = client.update_secret_properties("tour", enabled=False)
    print("enabled:", changed.enabled)
    try:
        client.get_secret("tour")
    except HttpResponseError as e:
        print("a disabled secret:", e.status_code, e.error.code)
    client.update_secret_properties("tour", enabled=True)

    for i in range(SECRETS):
        client.set_secret(f"page-{i:02}", str(i))
    names = []
    pages = 0
    for page in client.list_properties_of_secrets(max_page_size=7).by_page():
        pages += 1
        names += [s.name for s in page if s.name.startswith("page-")]
    print("listed:", len(set(names)), "of", len(names), "in several pages:", pages > 4)

    try:
        client.get_secret("absent")
    except ResourceNotFoundError as e:
        print("a secret that is not there:", e.status_code, e.error.code)
    try:
        client.set_secret("not_a_name", "x")
    except HttpResponseError as e:
        print("a name that is none:", e.status_code, e.error.code)

    backup = client.backup_secret("tour")
    client.begin_delete_secret("tour").wait()
    print("deleted:", client.get_deleted_secret("tour").name)
    client.purge_deleted_secret("tour")
    print("restored:", client.restore_secret_backup(backup).name, client.get_secret("tour").value)

    other = SecretClient(os.environ.get("OTHER_VAULT_URL", os.environ["KEYVAULT_URL"]), DefaultAzureCredential())
    try:
        other.get_secret("tour")
        print("another vault: allowed")
    except HttpResponseError as e:
        print("another vault:", e.status_code, e.error.code)


if __name__ == "__main__":
    main()
