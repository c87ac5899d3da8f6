"""The sandbox's fixed, well-known credentials. They open nothing else."""

CLIENT_ID = "sandbox-client-id"
CLIENT_SECRET = "sandbox-client-secret"  # noqa: S105 - made up, public on purpose
JWT = "sandbox-header.sandbox-claims.sandbox-signature"
API_TOKEN = "00000000-5a4d-4b0e-8000-000000000001"  # noqa: S105 - made up, public on purpose
API_KEY = "sandbox-api-key"
USER_EMAIL = "sandbox@example.com"
ACCOUNT_ID = "sandbox-account"
WEBSITE_ID = "sandbox-website"

RINGCENTRAL = "/ringcentral"
ELEVATEAI = "/elevateai/v1"
UNLESS = "/unless/api/v1"


def environment(base_url: str) -> dict[str, str]:
    """The `OUTWAIT_PROVIDERS__…` variables that point all providers at a sandbox.

    Args:
        base_url: where it listens, `http://127.0.0.1:8099` say.
    """
    base = base_url.rstrip("/")
    providers = {
        "RINGCENTRAL": {
            "BASE_URL": base + RINGCENTRAL,
            "CLIENT_ID": CLIENT_ID,
            "CLIENT_SECRET": CLIENT_SECRET,
            "JWT": JWT,
        },
        "ELEVATEAI": {"BASE_URL": base + ELEVATEAI, "API_TOKEN": API_TOKEN},
        "UNLESS": {
            "BASE_URL": base + UNLESS,
            "API_KEY": API_KEY,
            "USER_EMAIL": USER_EMAIL,
            "ACCOUNT_ID": ACCOUNT_ID,
            "WEBSITE_ID": WEBSITE_ID,
        },
    }
    return {
        f"OUTWAIT_PROVIDERS__{provider}__{name}": value
        for provider, values in providers.items()
        for name, value in values.items()
    }
