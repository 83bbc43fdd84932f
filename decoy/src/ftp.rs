//! FTP before the login: every name is asked for its password, every password is wrong, no data connection exists.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use crate::{
    Persona,
    bounds::{COMMANDS, LINE_BYTES, LOGIN_DELAY, LOGINS},
    conversation::{Conversation, End},
    record::{ConnectionRecorder, Happened, Text},
};

/// The greeting's text when the operator names none.
pub const BANNER: &str = "(vsFTPd 3.0.3)";

/// Talks to one peer until it or the decoy has had enough.
pub async fn talk<S>(talk: &mut Conversation<S>, persona: &Persona, recorder: &ConnectionRecorder) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    commands(talk, persona, recorder).await.unwrap_or_else(|end| end)
}

async fn commands<S>(
    talk: &mut Conversation<S>,
    persona: &Persona,
    recorder: &ConnectionRecorder,
) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    talk.say(format!("220 {}\r\n", persona.banner)).await?;
    let mut user: Option<Vec<u8>> = None;
    let mut refused = 0;
    for _ in 0..COMMANDS {
        let line = talk.line(LINE_BYTES).await?;
        let (verb, argument) = split(&line);
        let answer = match verb.as_slice() {
            b"USER" => {
                user = Some(argument.to_vec());
                "331 Please specify the password."
            }
            b"PASS" => match user.take() {
                None => "503 Login with USER first.",
                Some(user) => {
                    recorder.login(&user, argument);
                    refused += 1;
                    time::sleep(LOGIN_DELAY).await;
                    "530 Login incorrect."
                }
            },
            b"QUIT" => {
                talk.say("221 Goodbye.\r\n").await?;
                return Ok(End::Goodbye);
            }
            verb => {
                recorder.record(&Happened::Command {
                    line: Text::new(&line),
                });
                match verb {
                    b"FEAT" => {
                        "211-Features:\r\n EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n SIZE\r\n UTF8\r\n211 End"
                    }
                    b"OPTS" => "200 Always in UTF8 mode.",
                    _ => "530 Please login with USER and PASS.",
                }
            }
        };
        talk.say(format!("{answer}\r\n")).await?;
        if refused == LOGINS {
            return Ok(End::Goodbye);
        }
    }
    Ok(End::Goodbye)
}

/// The verb in capitals, and what follows the first space.
fn split(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let at = line.iter().position(|&byte| byte == b' ');
    let (verb, argument) = at.map_or((line, &[][..]), |at| (&line[..at], &line[at + 1..]));
    (verb.to_ascii_uppercase(), argument)
}

#[cfg(test)]
mod tests {
    use crate::serve::{
        Service,
        tests::{exchange_with, happened},
    };

    #[tokio::test(start_paused = true)]
    async fn a_login_is_recorded_and_refused() {
        let typed = b"syst\r\nUSER anonymous\r\nPASS guest@example.org\r\nLIST\r\nQUIT\r\n";
        let (said, records) = exchange_with(Service::Ftp, typed).await;
        let said = String::from_utf8(said).unwrap();
        let codes: Vec<&str> = said.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "530", "331", "530", "530", "221"]);
        assert_eq!(
            happened(&records),
            ["connect", "command", "login", "command", "close"]
        );
        assert_eq!(records[2]["user"], "anonymous");
        assert_eq!(records[2]["password"], "guest@example.org");
        assert_eq!(records[4]["because"], "goodbye");
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_without_a_name_is_no_login() {
        let (said, records) = exchange_with(Service::Ftp, b"PASS x\r\nQUIT\r\n").await;
        assert!(String::from_utf8(said).unwrap().contains("503 "));
        assert_eq!(happened(&records), ["connect", "close"]);
    }

    #[tokio::test(start_paused = true)]
    async fn three_wrong_passwords_end_the_connection() {
        let typed = b"USER a\r\nPASS b\r\n".repeat(5);
        let (_, records) = exchange_with(Service::Ftp, &typed).await;
        assert_eq!(
            happened(&records),
            ["connect", "login", "login", "login", "close"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn commands_have_an_end() {
        let (_, records) = exchange_with(Service::Ftp, &b"NOOP\r\n".repeat(500)).await;
        assert_eq!(records.len(), 2 + 32);
    }
}
