"""Signing in with a token, and what a session may do."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.api.conftest import problem
from tests.pages.conftest import looks
from tests.pages.store import checkpoint, put
from tests.support.browser import DESKTOP, axe_findings, needs_axe, watching
from tests.support.measure import long
from tests.support.prefix import served_below
from tests.support.routes import OPERATIONS, address
from tests.support.server import Server, start_server
from tests.support.tokens import bearer, catalog_url, make_token, revoke_token
from tests.support.waiting import assert_soon

MODEL = "/v1/models/vision/classifier"


@dataclass(frozen=True, slots=True)
class Guarded:
    server: Server
    tokens: dict[str, str]

    def own(self) -> dict[str, str]:
        """The headers of a page of this server."""
        return {"Origin": self.server.base_url, "Sec-Fetch-Site": "same-origin"}

    @contextmanager
    def signed_in(self, name: str) -> Iterator[httpx.Client]:
        """A client with a session's cookie, and nothing else."""
        with self.server.client() as http:
            answer = http.post("/sign-in", data={"token": self.tokens[name]}, headers=self.own())
            assert (answer.status_code, answer.headers["Location"]) == (303, "./")
            yield http


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    env = {"STATEROOM_SERVER_TOKEN": "s3cret", "STATEROOM_DURABLE": "off"}
    server = start_server(tmp_path_factory.mktemp("guarded") / "data", env=env)
    url = catalog_url(server)
    tokens = {name: make_token(url, name, name.split("-")[0]) for name in ("read", "write", "admin", "write-away")}
    tokens |= {"server": "s3cret", "narrow": make_token(url, "narrow", "read", "speech")}
    with server.client(headers=bearer(tokens["admin"])) as http:
        put(http, "vision/classifier", checkpoint(1), loss=0.5)
        put(http, "speech/wav2vec", checkpoint(2), loss=0.5)
    yield Guarded(server, tokens)
    server.kill()


def test_one_signs_in_comes_back_and_signs_out(tab: Page, guarded: Guarded) -> None:
    with watching(tab, guarded.server.base_url) as visit:
        page = visit.go("/?q=vision")
        expect(page).to_have_url(f"{visit.base_url}/sign-in?next=/%3Fq%3Dvision")
        page.keyboard.type("stateroom_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The token is invalid, expired or revoked.")
        page.get_by_label("Token").fill(guarded.tokens["write"])
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{visit.base_url}/?q=vision")
        expect(page.get_by_role("row", name="vision/classifier")).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        assert page.evaluate(f"fetch('{MODEL}').then((answer) => answer.status)") == 200
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{visit.base_url}/sign-in")
        assert page.context.cookies() == []
        visit.go("/")
        expect(page.get_by_label("Token")).to_be_focused()
    with guarded.server.client(cookies={cookie["name"]: cookie["value"]}) as http:
        assert_soon(lambda: http.get("/v1/models").status_code == 401)


def test_below_a_proxys_path_every_link_and_the_session_stay_there(tab: Page, guarded: Guarded) -> None:
    with served_below(guarded.server, "/ml/stateroom") as url, watching(tab, url) as visit:
        page = visit.go("/")
        page.get_by_label("Token").fill(guarded.tokens["read"])
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{url}/")
        (cookie,) = page.context.cookies()
        assert cookie["path"] == "/ml/stateroom"
        page.get_by_role("searchbox").fill("speech")
        expect(page.locator("tbody tr")).to_have_count(1)
        links = page.eval_on_selector_all("a[href], link[href]", "all => all.map(each => each.href)")
        assert [link for link in links if not link.startswith(url + "/") and not link.endswith("#main")] == []
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{url}/sign-in")
        assert page.context.cookies() == []
    assert visit.errors == visit.elsewhere == []


def test_a_session_changes_nothing_unless_a_page_of_ours_surely_asks(guarded: Guarded) -> None:
    away = {"Origin": "https://evil.example"}
    other_port = {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"}
    with guarded.signed_in("admin") as http:
        for method, path in OPERATIONS:
            if method != "GET":
                for page in ({}, away, other_port, {"Sec-Fetch-Site": "none"}, {"Origin": "null"}):
                    answer = http.request(method, address(path), headers=page)
                    assert problem(answer) == (403, "cross-site"), (method, path, page)
        change = {"best": "max:loss"}
        origin = {"Origin": guarded.server.base_url}
        for page in (guarded.own(), origin, {"Sec-Fetch-Site": "same-origin"}):
            assert http.patch(MODEL, json=change, headers=page).status_code == 200
        assert http.get(MODEL).status_code == 200  # it changes nothing, and no other site can read it
        for path in ("/sign-in", "/sign-out"):
            for page in ({}, away):
                answer = http.post(path, data={"token": guarded.tokens["write"]}, headers=page)
                assert answer.status_code == 403


def test_a_session_may_do_what_its_token_may_and_is_recorded_as_it(guarded: Guarded) -> None:
    with guarded.signed_in("write") as http:
        alias = http.put(f"{MODEL}/aliases/prod", json={"ref": "1"}, headers=guarded.own()).json()
        assert alias["moved_by"] == "write"
        assert problem(http.delete(f"{MODEL}/checkpoints/1", headers=guarded.own())) == (403, "forbidden")
    with guarded.signed_in("narrow") as http:
        page = http.get("/").text
        assert "wav2vec" in page
        assert "classifier" not in page
        assert problem(http.get(MODEL)) == (403, "forbidden")


def test_a_session_ends_with_its_token(guarded: Guarded) -> None:
    with guarded.signed_in("write-away") as http:
        assert http.get("/v1/models").status_code == 200
        revoke_token(catalog_url(guarded.server), "write-away")
        assert_soon(lambda: http.get("/v1/models").status_code == 401)
        ended = http.get("/v1/models")
        assert ended.headers["WWW-Authenticate"] == 'Bearer realm="stateroom"'  # Basic would open a dialog
        assert http.get("/").headers["Location"] == "./sign-in?next=/"


def test_a_token_has_so_many_sessions_and_a_further_one_ends_the_oldest(guarded: Guarded) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(guarded.signed_in("read")) for _ in range(21)]
        assert_soon(lambda: clients[0].get("/v1/models").status_code == 401)
        assert {http.get("/v1/models").status_code for http in clients[1:]} == {200}


def test_a_cookie_is_for_https_alone_where_the_browser_speaks_https(guarded: Guarded) -> None:
    form = {"token": guarded.tokens["server"]}
    with guarded.server.client() as http:
        plain = http.post("/sign-in", data=form, headers=guarded.own()).headers["Set-Cookie"]
        page = {"Host": "models.example", "Origin": "https://models.example", "Sec-Fetch-Site": "same-origin"}
        secure = http.post("/sign-in", data=form, headers=page).headers["Set-Cookie"]
    assert "secure" not in plain.lower()
    assert plain.startswith(f"stateroom_session_{guarded.server.port}=")
    assert "; Secure" in secure
    assert secure.startswith("stateroom_session=")
    for cookie in (plain, secure):
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert "path" not in cookie.lower()


@pytest.mark.parametrize(
    ("after", "location"),
    [
        ("/models/a/b?order=-loss", "./models/a/b?order=-loss"),
        ("//evil.example", "./"),
        ("https://evil.example", "./"),
        ("javascript:alert(1)", "./"),
        ("/\\evil.example", "./"),
        ("/\r\nSet-Cookie: a=b", "./"),
        ("/\tx", "./"),
        ("", "./"),
        ("/ü", "./"),
    ],
)
def test_the_sign_in_leads_to_paths_of_this_server_alone(guarded: Guarded, after: str, location: str) -> None:
    form = {"token": guarded.tokens["read"]}
    with guarded.server.client() as http:
        answer = http.post("/sign-in", params={"next": after}, data=form, headers=guarded.own())
    assert (answer.status_code, answer.headers["Location"]) == (303, location)


def test_a_form_that_is_no_form_is_refused_and_noted(guarded: Guarded) -> None:
    with guarded.server.client() as http:
        for body in (b"", b"\xff\xfe", b"token=", b"token=%ff%00", b"tok"):
            answer = http.post("/sign-in", content=body, headers=guarded.own())
            assert answer.status_code == 401
            assert "Set-Cookie" not in answer.headers
        assert http.post("/sign-in", content=b"x" * 9000, headers=guarded.own()).status_code == 413
        audit = bearer(guarded.tokens["admin"])
        assert_soon(lambda: "token-refused" in http.get("/v1/events", headers=audit).text)


def test_on_a_server_without_tokens_there_is_nothing_to_sign_in_to(full: Server) -> None:
    with full.client() as http:
        assert http.get("/sign-in").headers["Location"] == "./"
        stale = {"Cookie": f"stateroom_session_{full.port}={'0' * 64}"}
        assert http.get("/v1/models", headers=stale).status_code == 200
        assert http.get("/", headers=stale).status_code == 200


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(DESKTOP, "dark"))
def test_axe_finds_nothing(tab: Page, guarded: Guarded, size: tuple[int, int], theme: str) -> None:
    with watching(tab, guarded.server.base_url) as visit:
        visit.look(size, theme)
        assert axe_findings(visit.go("/sign-in")) == []
        visit.page.get_by_label("Token").fill("wrong")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("alert")).to_be_visible()
        assert axe_findings(visit.page) == []
