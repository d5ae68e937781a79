"""Any account that can be: its fields as people would write them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from postroom.model.account import AddressFamily, Cloud, GraphRecipients
from postroom.model.limits import WhenLimited
from tests.unit.accounts.examples import certificate_and_key, ed25519_key, rsa_key, service_account

Fields = dict[str, Any]

NAMES = st.text("abcDEF019._-", min_size=1, max_size=12).filter(lambda name: name.strip(".") != "")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40).map(str.strip)
SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=40)
HOSTS = st.sampled_from(["smtp.example.org", "192.0.2.1", "2001:db8::1", "relay_1.example", "bücher.example"])
ADDRESSES = st.sampled_from(["a@x.test", '"o d"@x.test', "ä@y.test"])
DURATIONS = st.sampled_from(["100ms", "1500ms", "1s", "59s", "2m", "3h", "1d"])
COUNTS = st.integers(1, 1000)
SWITCHES = st.booleans()
PATTERNS = st.lists(st.sampled_from(["*", "a@x.test", "*@x.test", "*@*.y.test"]), max_size=3)
LIMITS = st.one_of(st.none(), st.integers(1, 1_000_000_000))


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Fields]:
    """Some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def _all(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Fields]:
    """These fields."""
    return st.fixed_dictionaries(fields)


def _either(*choices: st.SearchStrategy[Fields]) -> st.SearchStrategy[Fields]:
    return st.one_of(st.just({}), *choices)


def _fixed(**fields: Any) -> st.SearchStrategy[Fields]:
    return st.just(fields)


def _merged(*parts: st.SearchStrategy[Fields]) -> st.SearchStrategy[Fields]:
    def join(found: tuple[Fields, ...]) -> Fields:
        return {name: value for part in found for name, value in part.items()}

    return st.tuples(*parts).map(join)


PAIR = dict(zip(("client_certificate", "client_key"), certificate_and_key(), strict=True))
OAUTH_PAIR = dict(zip(("oauth_certificate", "oauth_certificate_key"), certificate_and_key(1), strict=True))
CUSTOM = {"oauth_provider": "custom", "oauth_token_url": "https://t.example/", "oauth_scopes": ["a", "b c"]}

OF_ALL = _some(
    description=TEXTS, enabled=SWITCHES, owner=NAMES, charset=st.sampled_from(["utf-8", "1252", "latin1"]),
    template_cache=st.integers(0, 9), fail_if_template_not_found=SWITCHES, full_name=TEXTS, email_address=ADDRESSES,
    reply_address=ADDRESSES, sender_patterns=PATTERNS, recipient_patterns=PATTERNS, fall_back_after=DURATIONS,
    retry_schedule=st.sampled_from(["", "1m, 5m*2", "1h"]), retry_window=st.sampled_from([None, "1d", "300d"]),
    send_interval=DURATIONS, messages_per_second=LIMITS, messages_per_minute=LIMITS, messages_per_hour=LIMITS,
    messages_per_day=LIMITS, recipients_per_day=LIMITS, when_limited=st.sampled_from(WhenLimited), quota_group=NAMES,
    max_connections=COUNTS, messages_per_connection=COUNTS, recipients_per_transaction=COUNTS, idle_timeout=DURATIONS,
)  # fmt: skip
SENDER = _merged(
    _either(_merged(_all(fixed_sender=ADDRESSES), _some(
        fixed_sender_name=TEXTS, fixed_sender_keeps_reply=SWITCHES, fixed_sender_not_private=SWITCHES))),
    _either(_fixed(fallback="none"), _fixed(fallback_accounts=["Spare", "other"])),
    _either(_fixed(day="calendar"), _fixed(day="calendar", day_zone="Europe/Berlin")),
)  # fmt: skip
#: Mail by Graph is signed by Exchange Online.
SIGNATURES = _either(
    _fixed(dkim_domain="x.test"),
    _fixed(dkim_domain="x.test", dkim_selector="s1", dkim_rsa_key=rsa_key()),
    _fixed(dkim_domain="x.test", dkim_selector="s1", dkim_ed25519_key=ed25519_key()),
    _fixed(dkim_domain="x.test", dkim_selector="s1", dkim_rsa_key=rsa_key(), dkim_ed25519_selector="s2",
           dkim_ed25519_key=ed25519_key()),
)  # fmt: skip
NETWORK = _some(
    connect_timeout=DURATIONS, command_timeout=DURATIONS, end_of_data_timeout=DURATIONS, connect_retry=DURATIONS,
    reconnect_interval=DURATIONS, address_family=st.sampled_from(AddressFamily).filter(lambda one: one != "ipv6"),
    local_address=st.just("127.0.0.1"),
)  # fmt: skip
GREETING = _some(helo_name=st.sampled_from(["mail.example.org", "[192.0.2.1]"]))
OF_A_SERVER = _merged(
    _some(ca_bundle=st.just(PAIR["client_certificate"])),
    _either(_merged(
        _all(proxy_type=st.sampled_from(["socks5", "http-connect"]), proxy_host=HOSTS),
        _some(proxy_port=COUNTS),
    ), _merged(
        _fixed(proxy_type="http-connect", proxy_host="p.example", proxy_use_credentials=True),
        _all(proxy_username=NAMES.filter(lambda name: ":" not in name), proxy_password=SECRETS),
        _some(proxy_domain=NAMES),
    )),
    _either(_merged(_all(preset=st.just("gmail")), _some(preset_region=st.just("eu")))),
)  # fmt: skip
TOKENS = st.one_of(
    _fixed(oauth_client_id="c"),
    _merged(_fixed(oauth_client_id="c", oauth_flow="device-code"),
            _some(oauth_client_secret=SECRETS, oauth_refresh_token=SECRETS, oauth_cloud=st.sampled_from(Cloud),
                  oauth_tenant=st.just("contoso.example"))),
    _fixed(oauth_client_id="c", oauth_flow="client-credentials", oauth_tenant="t", **OAUTH_PAIR),
    _fixed(oauth_client_id="c", oauth_client_secret="s", oauth_secret_expires="2027-01-31"),
)  # fmt: skip
LOGIN = _either(
    _merged(_all(username=SECRETS.map(str.strip).filter(lambda one: one.isprintable() and bool(one)), password=SECRETS),
            _some(allow_clear_password=SWITCHES, mechanism=st.sampled_from(["auto", "cram-md5", "scram-sha-256"]))),
    _merged(_fixed(authentication="oauth2", username="a@x.test"), TOKENS),
    _fixed(authentication="oauth2", username="a@x.test", oauth_client_id="c", **CUSTOM,
           oauth_authorize_url="https://a.example/"),
    _fixed(authentication="oauth2", username="a@x.test", oauth_provider="google", oauth_flow="service-account",
           oauth_service_account=service_account()),
    _merged(_fixed(authentication="pop-before-smtp"),
            _all(pop_username=NAMES.filter(lambda one: " " not in one), pop_password=SECRETS),
            _some(pop_host=HOSTS, pop_port=COUNTS | st.just(110),
                  pop_interval=st.sampled_from(["0s", "7ms", "1500ms"]), pop_validity=st.sampled_from(["2s", "3h"])),
            st.one_of(_some(pop_security=st.sampled_from(["none", "stls", "tls"]), pop_apop=st.just(True)),
                      _merged(_all(pop_security=st.sampled_from(["stls", "tls"])), _some(pop_apop=SWITCHES)),
                      _fixed(pop_apop=False, allow_clear_password=True))),
)  # fmt: skip
SMTP = _merged(
    _fixed(kind="smtp"), _all(host=HOSTS), _some(port=COUNTS, dynamic=SWITCHES, server_name=HOSTS), NETWORK, GREETING,
    OF_A_SERVER, LOGIN, SIGNATURES,
    _some(tls_versions=st.lists(st.sampled_from(["1.0", "1.1", "1.2", "1.3"]), min_size=1)),
    _either(_fixed(verification="off"), _fixed(verification="fingerprint", fingerprints=["ab" * 32, "cd" * 32])),
    _either(_some(security=st.sampled_from(["auto", "starttls", "tls", "starttls-if-offered", "none"])),
            _merged(_fixed(**PAIR), _some(security=st.sampled_from(["starttls", "tls"])))),
).filter(
    lambda fields: fields.get("port") != 465
    and (fields.get("authentication"), fields.get("security")) != ("oauth2", "none")
)  # fmt: skip
GRAPH = _merged(
    _fixed(kind="graph"), _all(mailbox=ADDRESSES, max_connections=st.integers(1, 4)), NETWORK, OF_A_SERVER, TOKENS,
    _some(graph_recipients=st.sampled_from(GraphRecipients), graph_draft_from=st.sampled_from(["0B", "7KiB", "3MiB"])),
    _either(_merged(_fixed(draft_only=True), _some(draft_mailbox=ADDRESSES))),
)  # fmt: skip
DIRECT = _merged(_fixed(kind="direct"), NETWORK, GREETING, SIGNATURES)

#: The fields of an account but its name; it may name the accounts Spare and other.
FIELDS = _merged(OF_ALL, SENDER, st.one_of(SMTP, GRAPH, DIRECT, _merged(_fixed(kind="sandbox"), SIGNATURES)))
