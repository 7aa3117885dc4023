"""Where the client of a bucket finds credentials and the server: environment, then profile.

Floor 2. The one room below the fronts that reads the environment: credentials are not passed from
hand to hand. Invariant: no secret is in a value that has a `repr`, in a message or in a file.

What the environment says is read by the client itself (`AWS_ACCESS_KEY_ID`, web identities,
containers, machines); this adds what it does not read, the files of the AWS tools.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from typing import Any

from cas.errors import AccessDenied, Unsupported

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_ELSEWHERE = ("role_arn", "sso_session", "sso_start_url", "credential_process", "credential_source")


def surroundings() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ


def client_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the client is told beside what it finds in the environment: keyword arguments of it.

    Raises `AccessDenied` for a profile that is not there, and `Unsupported` for one whose
    credentials have to be asked for and where nothing is installed that does.
    """
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        return {}
    named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    found = _profile(environ, named or "default")
    if not found:
        if named:
            raise AccessDenied(
                f"AWS_PROFILE names {named!r}, and neither ~/.aws/credentials nor ~/.aws/config "
                "has such a profile.",
                path=named,
            )
        return {}
    settings: dict[str, Any] = {}
    if not (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")) and "region" in found:
        settings["region"] = found["region"]
    if not any(key.startswith("AWS_ENDPOINT") for key in environ) and "endpoint_url" in found:
        settings["endpoint"] = found["endpoint_url"]
    if "aws_access_key_id" in found and "aws_secret_access_key" in found:
        settings.update((ours, found[key]) for key, ours in _KEYS.items() if key in found)
    elif any(key in found for key in _ELSEWHERE):
        settings["credential_provider"] = _asking(named or "default")
    return settings


def _profile(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """What the two files say of a profile; that with credentials counts before the other."""
    home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".aws")
    section = name if name == "default" else f"profile {name}"
    return {
        **_section(environ.get("AWS_CONFIG_FILE") or os.path.join(home, "config"), section),
        **_section(
            environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, "credentials"), name
        ),
    }


def _section(path: str, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError):
        return {}
    except configparser.Error:
        # The error repeats the line that it did not understand, which may be a secret.
        raise AccessDenied(
            f"{path} is no file of profiles as the AWS tools read it.", path=path
        ) from None
    return dict(parser[name]) if parser.has_section(name) else {}


def _asking(profile: str) -> Any:
    """Who asks for the credentials of a profile: the library of the AWS tools, if it is there."""
    try:
        import boto3  # type: ignore[import-not-found,unused-ignore]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise Unsupported(
            f"The credentials of the profile {profile!r} have to be asked for; install boto3, "
            "which does that, or give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            library="boto3",
        ) from error
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))
