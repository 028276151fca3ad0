"""canaille as the tests need it: another identity provider, with nothing in common with the first.

    second_provider.py PORT CALLBACK

In memory, on loopback. Everybody is signed in as whom the header X-User says; the client is on loopback, which canaille trusts, so nobody is
asked for consent. The pages and the protocol are canaille's own.
"""

import datetime
import logging
import sys

from canaille import create_app
from canaille.app import models
from canaille.app.session import login_user
from canaille.backends import Backend
from flask import g, request
from joserfc.jwk import RSAKey

port, callback = int(sys.argv[1]), sys.argv[2]
logging.basicConfig(level=logging.WARNING)
app = create_app(
    {
        "SECRET_KEY": "a key of the tests, long enough to be one",
        "SERVER_NAME": f"127.0.0.1:{port}",
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "memory"},
        "CANAILLE_OIDC": {
            "ACTIVE_JWKS": [RSAKey.generate_key(2048, auto_kid=True).as_dict(private=True)],
        },
    }
)
users = {}
with app.app_context(), Backend.instance.session():
    for name, group in (("ada", "ops"), ("lin", "lab")):
        users[name] = models.User(
            user_name=name,
            formatted_name=f"The person {name}",
            family_name=name,
            emails=[f"{name}@example.org"],
        )
        Backend.instance.save(users[name])
        Backend.instance.save(models.Group(display_name=group, members=[users[name]]))
    client = models.Client(
        client_id="bmi",
        client_secret="the-secret-of-bmi",
        client_name="BMI",
        client_id_issued_at=datetime.datetime.now(datetime.timezone.utc),
        contacts=["ops@example.org"],
        client_uri=callback,
        redirect_uris=[callback],
        grant_types=["authorization_code"],
        response_types=["code"],
        scope=["openid", "profile", "groups"],
        # canaille would take the strongest: PS512, which this configuration does not allow.
        id_token_signed_response_alg="RS256",
        token_endpoint_auth_method="client_secret_basic",
    )
    # An audience is known by what is saved already.
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)


@app.before_request
def signed_in():
    user = users.get(request.headers.get("X-User", ""))
    if user and not g.get("session"):
        login_user(user)


app.run("127.0.0.1", port, threaded=False)
