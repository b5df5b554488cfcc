"""The identities that log in, and a token that expires."""

import os
import time

import pytest
from azure.identity import ClientSecretCredential, ManagedIdentityCredential
from azure.identity import aio

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
TENANT = dict(
    tenant_id=os.environ["AZURE_TENANT_ID"],
    client_id=os.environ["REPORTING_CLIENT_ID"],
    client_secret=os.environ["REPORTING_CLIENT_SECRET"],
    authority=os.environ["AZURE_AUTHORITY_HOST"],
    disable_instance_discovery=True,  # only Microsoft's own authorities are known to it
)

# The role of each identity, and its credentials for blocking and for asynchronous code.
CREDENTIALS = {
    "shop-api": (
        lambda: ManagedIdentityCredential(client_id=os.environ["SHOP_API_CLIENT_ID"]),
        lambda: aio.ManagedIdentityCredential(client_id=os.environ["SHOP_API_CLIENT_ID"]),
    ),
    "reporting": (
        lambda: ClientSecretCredential(**TENANT),
        lambda: aio.ClientSecretCredential(**TENANT),
    ),
}


class Kept:
    """A token that was requested at the start."""

    def __init__(self):
        token = CREDENTIALS["shop-api"][0]().get_token(SCOPE)
        self.token, self.expires = token.token, token.expires_on

    def wait_until_expired(self):
        time.sleep(max(0, self.expires + 1 - time.time()))


@pytest.fixture(scope="session")
def kept():
    return Kept()


@pytest.fixture
def expired(kept):
    kept.wait_until_expired()
    return kept
