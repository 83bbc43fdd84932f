//! HTTP/1.1 with a login page: requests are read within bounds, credentials from Basic authentication and from forms are
//! recorded and refused.

use data_encoding::BASE64;
use jiff::{Timestamp, tz::TimeZone};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use crate::{
    Persona,
    bounds::{COMMANDS, LOGIN_DELAY},
    conversation::{Conversation, End},
    record::{ConnectionRecorder, Happened, Text},
};

/// The `Server` header when the operator names none.
pub const BANNER: &str = "nginx/1.22.1";
/// The request line and each header.
const LINE_BYTES: usize = 4096;
const HEADERS: usize = 64;
/// A login form is far smaller.
const BODY_BYTES: usize = 4096;

/// The form fields that login forms use for a name and for a password.
const USER_FIELDS: [&[u8]; 6] = [b"user", b"username", b"login", b"log", b"email", b"name"];
const PASSWORD_FIELDS: [&[u8]; 4] = [b"password", b"pass", b"passwd", b"pwd"];

/// Talks to one peer until it or the decoy has had enough.
pub async fn talk<S>(talk: &mut Conversation<S>, persona: &Persona, recorder: &ConnectionRecorder) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    requests(talk, persona, recorder).await.unwrap_or_else(|end| end)
}

async fn requests<S>(
    talk: &mut Conversation<S>,
    persona: &Persona,
    recorder: &ConnectionRecorder,
) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    for _ in 0..COMMANDS {
        let request = match read(talk).await {
            Ok(request) => request,
            Err(Unread::End(end)) => return Err(end),
            Err(Unread::Status(status)) => {
                // What follows such a request cannot be told apart from its body.
                talk.say(answer(status, Body::Shown, After::Close, persona, recorder.now()))
                    .await?;
                return Ok(End::Nonsense);
            }
        };
        let login = request.login();
        let status = request.status(login.is_some());
        recorder.record(&Happened::Request {
            method: Text::new(&request.method),
            path: Text::new(&request.path),
            user_agent: Text::new(&request.user_agent),
            host: Text::new(&request.host),
            status,
        });
        if let Some((user, password)) = login {
            recorder.login(&user, &password);
            time::sleep(LOGIN_DELAY).await;
        }
        let body = if request.method == b"HEAD" {
            Body::Left
        } else {
            Body::Shown
        };
        talk.say(answer(status, body, request.after, persona, recorder.now()))
            .await?;
        if request.after == After::Close {
            return Ok(End::Goodbye);
        }
    }
    Ok(End::Goodbye)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Shown,
    Left,
}

struct Request {
    method: Vec<u8>,
    path: Vec<u8>,
    user_agent: Vec<u8>,
    host: Vec<u8>,
    authorization: Vec<u8>,
    body: Vec<u8>,
    after: After,
}

enum Unread {
    End(End),
    /// Answered with this status.
    Status(u16),
}

impl From<End> for Unread {
    fn from(end: End) -> Self {
        match end {
            End::TooLong => Self::Status(431),
            End::PeerClosed
            | End::Goodbye
            | End::Idle
            | End::TooSlow
            | End::TooMuch
            | End::Nonsense
            | End::Broken
            | End::Stopping => Self::End(end),
        }
    }
}

async fn read<S>(talk: &mut Conversation<S>) -> Result<Request, Unread>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let line = talk.line(LINE_BYTES).await?;
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Unread::Status(400));
    };
    let method_is_a_word = !method.is_empty() && method.iter().all(u8::is_ascii_alphabetic);
    if !method_is_a_word || path.is_empty() || !version.starts_with(b"HTTP/1.") {
        return Err(Unread::Status(400));
    }
    let mut request = Request {
        method: method.to_vec(),
        path: path.to_vec(),
        user_agent: Vec::new(),
        host: Vec::new(),
        authorization: Vec::new(),
        body: Vec::new(),
        after: if version == b"HTTP/1.1" {
            After::KeepAlive
        } else {
            After::Close
        },
    };
    let mut length = 0;
    for count in 0.. {
        let line = talk.line(LINE_BYTES).await?;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Err(Unread::Status(400));
        };
        if count == HEADERS {
            return Err(Unread::Status(431));
        }
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].to_ascii_lowercase().as_slice() {
            b"user-agent" => request.user_agent = value.to_vec(),
            b"host" => request.host = value.to_vec(),
            b"authorization" => request.authorization = value.to_vec(),
            b"connection" if value.eq_ignore_ascii_case(b"close") => request.after = After::Close,
            b"transfer-encoding" => return Err(Unread::Status(411)),
            b"content-length" => {
                length = std::str::from_utf8(value)
                    .ok()
                    .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|value| value.parse::<usize>().ok())
                    .ok_or(Unread::Status(400))?;
            }
            _ => {}
        }
    }
    if length > BODY_BYTES {
        return Err(Unread::Status(413));
    }
    request.body = talk.exactly(length).await?;
    Ok(request)
}

impl Request {
    /// The name and password it tries, if it does.
    fn login(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        basic(&self.authorization).or_else(|| (self.method == b"POST").then(|| form(&self.body)).flatten())
    }

    fn status(&self, tries_login: bool) -> u16 {
        let path = self.path.split(|&byte| byte == b'?').next().unwrap_or_default();
        match (tries_login, self.method.as_slice(), path) {
            (true, _, _) => 401,
            (false, b"GET" | b"HEAD", b"/" | b"/index.html" | b"/login") => 200,
            (false, b"GET" | b"HEAD" | b"POST", path) if path.starts_with(b"/admin") => 401,
            (false, b"GET" | b"HEAD", _) => 404,
            (false, b"POST", _) => 403,
            (false, _, _) => 405,
        }
    }
}

/// The name and password of a Basic `Authorization` value (RFC 7617).
fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = BASE64.decode(encoded.trim_ascii()).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some((pair[..colon].to_vec(), pair[colon + 1..].to_vec()))
}

/// The name and password of a form, under any of the usual field names.
fn form(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut user = None;
    let mut password = None;
    for pair in body.split(|&byte| byte == b'&') {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let field = decode(&pair[..equals]).to_ascii_lowercase();
        if USER_FIELDS.contains(&field.as_slice()) {
            user.get_or_insert_with(|| decode(&pair[equals + 1..]));
        } else if PASSWORD_FIELDS.contains(&field.as_slice()) {
            password.get_or_insert_with(|| decode(&pair[equals + 1..]));
        }
    }
    (user.is_some() || password.is_some()).then(|| (user.unwrap_or_default(), password.unwrap_or_default()))
}

/// Form decoding: `+` is a space, `%XX` a byte, anything malformed stays as it is.
fn decode(encoded: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', &[high, low, ref beyond @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                decoded.push(digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0));
                rest = beyond;
            }
            (byte, _) => decoded.push(byte),
        }
    }
    decoded
}

fn answer(status: u16, body: Body, after: After, persona: &Persona, now: Timestamp) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        405 => "Not Allowed",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Not Found",
    };
    let page = if status == 200 {
        login_page(&persona.hostname)
    } else {
        error_page(status, reason, persona)
    };
    let date = now.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT");
    let connection = match after {
        After::KeepAlive => "keep-alive",
        After::Close => "close",
    };
    let challenge = if status == 401 {
        "WWW-Authenticate: Basic realm=\"Restricted\"\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nServer: {}\r\nDate: {date}\r\nContent-Type: text/html\r\n\
         Content-Length: {}\r\nConnection: {connection}\r\n{challenge}\r\n",
        persona.banner,
        page.len()
    );
    let mut answer = head.into_bytes();
    if body == Body::Shown {
        answer.extend(page.into_bytes());
    }
    answer
}

fn login_page(hostname: &str) -> String {
    let hostname = escape(hostname);
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>{hostname} - Login</title></head>\n<body>\n<h1>{hostname}</h1>\n\
         <form method=\"post\" action=\"/login\">\n\
         <label>Username <input name=\"username\" autofocus></label>\n\
         <label>Password <input name=\"password\" type=\"password\"></label>\n\
         <button>Log in</button>\n</form>\n</body>\n</html>\n"
    )
}

fn error_page(status: u16, reason: &str, persona: &Persona) -> String {
    format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n\
         <hr><center>{}</center>\r\n</body>\r\n</html>\r\n",
        escape(&persona.banner)
    )
}

/// The operator's words in HTML. Nothing a peer sent is ever shown back.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::serve::{
        Service,
        tests::{exchange_with, happened},
    };

    fn statuses(said: &[u8]) -> Vec<u16> {
        String::from_utf8_lossy(said)
            .lines()
            .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
            .map(|line| line[..3].parse().unwrap())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_login_page_is_shown_and_a_form_is_recorded() {
        let typed = b"GET / HTTP/1.1\r\nHost: web\r\nUser-Agent: curl/8\r\n\r\n\
            POST /login HTTP/1.1\r\nContent-Length: 35\r\n\r\nusername=ad%6Din&password=let+me+in\
            GET /nothing HTTP/1.0\r\n\r\n";
        let (said, records) = exchange_with(Service::Http, typed).await;
        assert_eq!(statuses(&said), [200, 401, 404]);
        assert!(String::from_utf8_lossy(&said).contains("<form method=\"post\""));
        assert_eq!(records[1]["user_agent"], "curl/8");
        assert_eq!(records[3]["user"], "admin");
        assert_eq!(records[3]["password"], "let me in");
        assert_eq!(
            happened(&records)[..4],
            ["connect", "request", "request", "login"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn basic_credentials_are_recorded_and_refused() {
        let typed = b"GET /admin HTTP/1.1\r\n\r\n\
            GET /admin HTTP/1.1\r\nAuthorization: Basic cm9vdDp0OmE=\r\nConnection: close\r\n\r\n";
        let (said, records) = exchange_with(Service::Http, typed).await;
        assert_eq!(statuses(&said), [401, 401]);
        assert!(String::from_utf8_lossy(&said).contains("WWW-Authenticate: Basic"));
        assert_eq!(records[3]["user"], "root");
        assert_eq!(records[3]["password"], "t:a");
        assert_eq!(records[4]["because"], "goodbye");
    }

    #[tokio::test(start_paused = true)]
    async fn each_bad_request_gets_its_status_and_the_end() {
        let long = [b"GET /".as_slice(), &[b'a'; 5000], b" HTTP/1.1\r\n\r\n"].concat();
        let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(65), b"\r\n"].concat();
        for (typed, status) in [
            (b"hello\r\n".as_slice(), 400),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                400,
            ),
            (b"POST / HTTP/1.1\r\nContent-Length: 4097\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (&long, 431),
            (&many, 431),
        ] {
            let (said, records) = exchange_with(Service::Http, typed).await;
            assert_eq!(statuses(&said), [status], "{}", String::from_utf8_lossy(typed));
            assert_eq!(records.last().unwrap()["because"], "not the protocol");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_a_peer_sent_is_shown_back() {
        let typed = b"GET /<script>x</script> HTTP/1.1\r\nHost: <script>\r\nConnection: close\r\n\r\n";
        let (said, _) = exchange_with(Service::Http, typed).await;
        assert!(!String::from_utf8_lossy(&said).contains("script"));
    }

    proptest! {
        #[test]
        fn no_credentials_make_the_parsers_fall(bytes: Vec<u8>) {
            basic(&bytes);
            form(&bytes);
            prop_assert!(decode(&bytes).len() <= bytes.len());
        }
    }
}
