//! Somebody on the path who has no key at all and answers in the master's place.

use picket_link::LinkError;
use picket_pki::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::site::{MASTER, Site};

#[tokio::test(start_paused = true)]
async fn an_alert_that_anybody_could_have_written_is_never_a_refusal_of_our_certificate() {
    let site = Site::new();
    let host = site.host();
    for alert in 0..=u8::MAX {
        let mut incoming = site.pipes.listen(MASTER);
        let impostor = async {
            let (mut io, _) = incoming.accept().await.unwrap();
            let mut header = [0; 5];
            io.read_exact(&mut header).await.unwrap();
            let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
            io.read_exact(&mut hello).await.unwrap();
            io.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
        };
        let (answer, ()) = tokio::join!(site.dial(site.caller(&host)), impostor);
        match answer.unwrap_err() {
            LinkError::Refused { cause, .. } => assert_eq!(cause, Refusal::Protocol, "alert {alert}"),
            LinkError::Unreachable(_) => {}
            error @ (LinkError::NotTheMaster { .. } | LinkError::TimedOut { .. } | LinkError::NoAddress) => {
                panic!("alert {alert}: {error}")
            }
        }
    }
}
