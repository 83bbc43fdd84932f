//! A telnet login: option negotiation is taken and ignored (RFC 854), the prompt is a Unix one, nobody gets in.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use crate::{
    Persona,
    bounds::{LINE_BYTES, LOGIN_DELAY, LOGINS},
    conversation::{Conversation, End},
    record::ConnectionRecorder,
};

/// The line above the prompt when the operator names none.
pub const BANNER: &str = "Debian GNU/Linux 12";

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
/// "I will echo" and "I will suppress go-ahead": what every Unix telnetd starts with.
const GREETING: [u8; 6] = [IAC, 251, 1, IAC, 251, 3];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// How the line before ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Whole,
    /// With a carriage return, whose LF or NUL may still come.
    Return,
}

/// Talks to one peer until it or the decoy has had enough.
pub async fn talk<S>(talk: &mut Conversation<S>, persona: &Persona, recorder: &ConnectionRecorder) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    prompt(talk, persona, recorder).await.unwrap_or_else(|end| end)
}

async fn prompt<S>(
    talk: &mut Conversation<S>,
    persona: &Persona,
    recorder: &ConnectionRecorder,
) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    talk.say(GREETING).await?;
    talk.say(format!("{}\r\n", persona.banner)).await?;
    let mut last = LineEnd::Whole;
    for _ in 0..LOGINS {
        talk.say(format!("{} login: ", persona.hostname)).await?;
        let user = line(talk, Echo::On, &mut last).await?;
        talk.say("Password: ").await?;
        let password = line(talk, Echo::Off, &mut last).await?;
        recorder.login(&user, &password);
        time::sleep(LOGIN_DELAY).await;
        talk.say("\r\nLogin incorrect\r\n").await?;
    }
    Ok(End::Goodbye)
}

/// A line as typed: without negotiation, with backspaces applied. A return key is CR LF, CR NUL, CR or LF.
async fn line<S>(talk: &mut Conversation<S>, echo: Echo, last: &mut LineEnd) -> Result<Vec<u8>, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut line = Vec::new();
    let mut shown = Vec::new();
    loop {
        if !shown.is_empty() && !talk.has_pending() {
            talk.say(std::mem::take(&mut shown)).await?;
        }
        let byte = talk.byte().await?;
        let before = std::mem::replace(last, LineEnd::Whole);
        match byte {
            IAC => negotiation(talk, &mut line).await?,
            b'\n' if before == LineEnd::Return => {}
            b'\n' => break,
            b'\r' => {
                *last = LineEnd::Return;
                break;
            }
            0 => {}
            8 | 127 => {
                if line.pop().is_some() && echo == Echo::On {
                    shown.extend(b"\x08 \x08");
                }
            }
            byte => {
                line.push(byte);
                if echo == Echo::On && (b' '..=b'~').contains(&byte) {
                    shown.push(byte);
                }
            }
        }
        if line.len() > LINE_BYTES {
            return Err(End::TooLong);
        }
    }
    if echo == Echo::On {
        shown.extend(b"\r\n");
        talk.say(shown).await?;
    }
    Ok(line)
}

/// Takes what follows an IAC: an option (two bytes), a subnegotiation up to IAC SE, or a 255 meant as data.
async fn negotiation<S>(talk: &mut Conversation<S>, line: &mut Vec<u8>) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match talk.byte().await? {
        IAC => line.push(IAC),
        251..=254 => {
            talk.byte().await?;
        }
        SB => loop {
            // Ends at the latest when the connection's bytes are spent.
            if talk.byte().await? == IAC && talk.byte().await? == SE {
                break;
            }
        },
        0..=249 => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::serve::{
        Service,
        tests::{exchange_with, happened},
    };

    #[tokio::test(start_paused = true)]
    async fn three_logins_are_recorded_and_refused() {
        let typed = b"root\r\nhunter2\r\nadmin\r\0admin\r\0pi\nraspberry\nmore\r\n";
        let (said, records) = exchange_with(Service::Telnet, typed).await;
        assert_eq!(
            happened(&records),
            ["connect", "login", "login", "login", "close"]
        );
        let tried: Vec<_> = records[1..4]
            .iter()
            .map(|record| {
                (
                    record["user"].as_str().unwrap(),
                    record["password"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            tried,
            [("root", "hunter2"), ("admin", "admin"), ("pi", "raspberry")]
        );
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.matches("Login incorrect").count(), 3);
        assert!(said.contains("\r\nweb-03 login: "), "{said}");
        assert!(!said.contains("hunter2"), "a password is not echoed");
    }

    #[tokio::test(start_paused = true)]
    async fn negotiation_and_backspaces_are_no_part_of_a_name() {
        let typed = b"\xff\xfd\x01ro\xff\xfa\x18\x00xterm\xff\xf0ox\x7ft\r\n\xff\xfb\x1fpw\r\n";
        let (_, records) = exchange_with(Service::Telnet, typed).await;
        assert_eq!(records[1]["user"], "root");
        assert_eq!(records[1]["password"], "pw");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_end_is_cut_off() {
        let (_, records) = exchange_with(Service::Telnet, &[b'a'; 5000]).await;
        assert_eq!(happened(&records), ["connect", "close"]);
        assert_eq!(records[1]["because"], "line too long");
    }
}
