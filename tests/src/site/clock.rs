//! The time of the site, and what an operator does about the master's.

use std::time::Duration;

use jiff::Timestamp;
use picket_master::{local, signer::CaKey};
use picket_proto::{
    from_wire_time,
    wire::admin::{
        AcceptClockRequest, GetClockRequest, MasterClock, clock_service_client::ClockServiceClient,
    },
};
use tonic::Status;

use super::Site;
use crate::sentence;

impl Site {
    /// Lets all machines sleep, an agent that runs with its machine, while the master is down; then starts the master. The
    /// operator has a certificate that holds.
    pub async fn sleep(&self, span: Duration) {
        self.stop_master().await;
        self.clock.sleep(span);
        let bundle = self.data_dir().join("admin.bundle");
        let (dir, device) = (self.data_dir(), local::first_device());
        let made = local::admin_bundle(&dir, "admin", &device, &bundle, &CaKey::Plain, &self.clock).await;
        made.unwrap_or_else(|error| panic!("admin-bundle: {}", sentence(&error)));
        self.start_master().await;
    }

    /// What the master says of its clock.
    pub async fn master_clock(&self) -> MasterClock {
        let ask = async |channel| {
            ClockServiceClient::new(channel)
                .get_clock(GetClockRequest {})
                .await
        };
        self.told(ask).await.clock.expect("an answer has a clock")
    }

    /// The time the master goes by.
    pub async fn master_time(&self) -> Timestamp {
        let clock = self.master_clock().await;
        from_wire_time(&clock.time.expect("a clock has a time")).expect("that is one")
    }

    /// Takes the clock of the master's machine for right.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_accept_clock(&self, go_back: bool) -> Result<MasterClock, Status> {
        let asked = AcceptClockRequest {
            reason: "a story".to_owned(),
            go_back,
        };
        let answer = self.ask(async |channel| ClockServiceClient::new(channel).accept_clock(asked).await);
        Ok(answer.await?.clock.expect("an answer has a clock"))
    }

    /// How often a word stands in the master's journal.
    #[must_use]
    pub fn in_journal(&self, word: &str) -> usize {
        let journal = self.data_dir().join("store/journal");
        let files = std::fs::read_dir(journal).expect("the store has a journal");
        let count = |bytes: Vec<u8>| {
            let found = bytes.windows(word.len()).filter(|at| *at == word.as_bytes());
            found.count()
        };
        files
            .map(|file| count(std::fs::read(file.expect("it can be listed").path()).expect("and read")))
            .sum()
    }
}
