//! SSH up to the key exchange: both version lines and the client's algorithm lists, in the clear (RFC 4253, sections 4.2
//! and 7.1). There is no cryptography here; where it would begin the peer is left waiting, and then left.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Persona,
    conversation::{Conversation, End},
    record::{ConnectionRecorder, Happened, Text},
};

/// The version line when the operator names none.
pub const BANNER: &str = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3";
/// RFC 4253 allows 255 bytes with the line end.
const VERSION_BYTES: usize = 255;
/// RFC 4253 wants implementations to take packets of 35,000 bytes; nobody lists that many algorithms.
const PACKET_BYTES: usize = 16 * 1024;
const MSG_KEXINIT: u8 = 20;
const COOKIE_BYTES: usize = 16;

/// What an OpenSSH server of that version offers, in the order of RFC 4253: key exchanges, host keys, ciphers, MACs,
/// compression and languages, the last four once for each direction.
const OFFER: [&str; 10] = [
    "sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,\
     ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,\
     diffie-hellman-group18-sha512,diffie-hellman-group14-sha256,kex-strict-s-v00@openssh.com",
    "rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256,ssh-ed25519",
    CIPHERS,
    CIPHERS,
    MACS,
    MACS,
    "none,zlib@openssh.com",
    "none,zlib@openssh.com",
    "",
    "",
];
const CIPHERS: &str = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,\
                       aes256-gcm@openssh.com";
const MACS: &str = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,\
                    hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,\
                    umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1";

/// Talks to one peer until it or the decoy has had enough.
pub async fn talk<S>(talk: &mut Conversation<S>, persona: &Persona, recorder: &ConnectionRecorder) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    exchange(talk, persona, recorder).await.unwrap_or_else(|end| end)
}

async fn exchange<S>(
    talk: &mut Conversation<S>,
    persona: &Persona,
    recorder: &ConnectionRecorder,
) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    talk.say(format!("{}\r\n", persona.banner)).await?;
    let version = talk.line(VERSION_BYTES).await?;
    recorder.record(&Happened::Version {
        client: Text::new(&version),
    });
    if !version.starts_with(b"SSH-2.0-") && !version.starts_with(b"SSH-1.99-") {
        talk.say("Invalid SSH identification string.\r\n").await?;
        return Ok(End::Nonsense);
    }
    talk.say(offer()).await?;
    let packet = packet(talk).await?;
    let lists = algorithms(&packet).ok_or(End::Nonsense)?;
    recorder.record(&Happened::Algorithms {
        key_exchange: Text::new(lists[0]),
        host_key: Text::new(lists[1]),
        cipher: Text::new(lists[2]),
        mac: Text::new(lists[4]),
    });
    Ok(talk.drain().await)
}

/// The payload of one unencrypted packet.
async fn packet<S>(talk: &mut Conversation<S>) -> Result<Vec<u8>, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let head = talk.exactly(5).await?;
    let length =
        usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).unwrap_or(usize::MAX);
    let padding = usize::from(head[4]);
    if length > PACKET_BYTES {
        return Err(End::TooLong);
    }
    let payload = length
        .checked_sub(1 + padding)
        .filter(|&payload| payload > 0)
        .ok_or(End::Nonsense)?;
    let mut rest = talk.exactly(length - 1).await?;
    rest.truncate(payload);
    Ok(rest)
}

/// The ten name lists of a KEXINIT payload.
fn algorithms(payload: &[u8]) -> Option<[&[u8]; 10]> {
    let (&kind, rest) = payload.split_first()?;
    if kind != MSG_KEXINIT {
        return None;
    }
    let mut rest = rest.get(COOKIE_BYTES..)?;
    let mut lists = [&[][..]; 10];
    for list in &mut lists {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        *list = after.get(..length)?;
        rest = &after[length..];
    }
    Some(lists)
}

/// Our own KEXINIT, as a packet.
fn offer() -> Vec<u8> {
    let mut payload = vec![MSG_KEXINIT];
    // The cookie keys nothing here, since no key is ever agreed on; it only must not be the same every time.
    payload.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(COOKIE_BYTES));
    for list in OFFER {
        payload.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]); // no guess follows; reserved
    let mut padding = 8 - (5 + payload.len()) % 8;
    if padding < 4 {
        padding += 8;
    }
    let mut packet = Vec::with_capacity(5 + payload.len() + padding);
    packet.extend(
        u32::try_from(1 + payload.len() + padding)
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    packet.push(u8::try_from(padding).unwrap_or(u8::MAX));
    packet.extend(payload);
    packet.extend(std::iter::repeat_n(0, padding));
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::serve::tests::{exchange_with, happened};

    #[tokio::test(start_paused = true)]
    async fn a_client_is_greeted_and_its_version_and_algorithms_are_recorded() {
        let mut client = b"SSH-2.0-libssh_0.9.6\r\n".to_vec();
        client.extend(offer());
        let (said, records) = exchange_with(crate::serve::Service::Ssh, &client).await;
        assert!(said.starts_with(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n\0\0"));
        assert_eq!(happened(&records), ["connect", "version", "algorithms", "close"]);
        assert_eq!(records[1]["client"], "SSH-2.0-libssh_0.9.6");
        assert!(
            records[2]["key_exchange"]
                .as_str()
                .unwrap()
                .starts_with("sntrup761x25519")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_to_the_protocol_is_recorded_and_left() {
        let (_, records) = exchange_with(crate::serve::Service::Ssh, b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(records[1]["client"], "GET / HTTP/1.1");
        assert_eq!(records.last().unwrap()["because"], "not the protocol");
    }

    #[tokio::test]
    async fn our_own_offer_is_a_packet_a_client_can_read() {
        let (mut near, far) = duplex(8192);
        near.write_all(&offer()).await.unwrap();
        assert_eq!(offer().len() % 8, 0);
        let payload = packet(&mut Conversation::new(far)).await.unwrap();
        assert_eq!(algorithms(&payload).unwrap()[1], OFFER[1].as_bytes());
        drop(near.read_u8());
    }

    #[tokio::test(start_paused = true)]
    async fn a_packet_that_claims_gigabytes_is_refused_without_waiting_for_them() {
        let (_, records) =
            exchange_with(crate::serve::Service::Ssh, b"SSH-2.0-x\r\n\xff\xff\xff\xff\x04").await;
        assert_eq!(records.last().unwrap()["because"], "line too long");
    }

    proptest! {
        #[test]
        fn no_payload_makes_the_parser_fall(payload: Vec<u8>) {
            algorithms(&payload);
        }

        #[test]
        fn a_payload_cut_anywhere_has_no_lists(cut in 0_usize..500) {
            let packet = offer();
            let whole = &packet[5..packet.len() - usize::from(packet[4])];
            let cut = cut.min(whole.len() - 6);
            prop_assert!(algorithms(&whole[..cut]).is_none() || cut >= whole.len() - 5);
        }
    }
}
