//! Makes changes through a master's admin API as fast as it takes them, and writes each acknowledgement down before it
//! counts it: the witness of what a master that was killed had promised.
//!
//! A process of its own, so that nothing of it goes down with the master or with the test.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use picket_clock::Clock;
use picket_link::{Options, Tcp, connect};
use picket_pki::{Authorities, Bundle, client_config};
use picket_proto::wire::admin::{
    AdmitMemberRequest, EnrollHostRequest, LabelHostRequest, NoteHostRequest,
    host_service_client::HostServiceClient, member_service_client::MemberServiceClient,
};
use picket_tests::process::Change;
use tokio::{task::JoinSet, time};
use tonic::{Code, Status, transport::Channel};

/// How many clients make changes at once.
const CLIENTS: usize = 12;
/// A change that takes longer than this was not acknowledged.
const ANSWER: Duration = Duration::from_secs(5);
/// After a refused connection: the master is being restarted.
const AGAIN: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let [bundle, acknowledged, network] =
        <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
            .map_err(|_| anyhow::anyhow!("usage: picket-recorder BUNDLE ACKNOWLEDGED NETWORK"))?;
    let bundle = Arc::new(Bundle::parse(&fs::read(bundle)?)?);
    let path = PathBuf::from(acknowledged);
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    let ledger = Arc::new(Mutex::new(file));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(changes(
            client,
            Arc::clone(&bundle),
            Arc::clone(&ledger),
            network.clone(),
        ));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

/// Enrolls hosts, and labels, notes and admits each, for ever. Every change is of its own kind: none hides another.
async fn changes(
    client: usize,
    bundle: Arc<Bundle>,
    ledger: Arc<Mutex<File>>,
    network: String,
) -> anyhow::Result<()> {
    let mut desk = Desk {
        bundle,
        channel: None,
    };
    for number in 0_u32.. {
        let host = format!("c{client}-{number}");
        let node = format!("{:02x}{number:08x}", client + 1);
        for change in [
            Change::Enrolled { host: host.clone() },
            Change::Labelled {
                host: host.clone(),
                value: format!("v{number}"),
            },
            Change::Noted {
                host: host.clone(),
                note: format!("note {number} of {client}"),
            },
            Change::Admitted {
                network: network.clone(),
                node,
            },
        ] {
            desk.make(&change).await?;
            let mut line = serde_json::to_vec(&change)?;
            line.push(b'\n');
            // One write, which is the kernel's from here on, whatever becomes of this process.
            ledger
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(&line)?;
        }
    }
    Ok(())
}

/// One client's connection, made again whenever the master comes back.
struct Desk {
    bundle: Arc<Bundle>,
    channel: Option<Channel>,
}

impl Desk {
    /// Makes a change until a master acknowledges it. One that was made under a master that died before it answered is
    /// found done.
    async fn make(&mut self, change: &Change) -> anyhow::Result<()> {
        loop {
            let Some(channel) = self.channel().await? else {
                time::sleep(AGAIN).await;
                continue;
            };
            match time::timeout(ANSWER, call(channel, change)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(status)) if status.code() == Code::AlreadyExists => return Ok(()),
                Ok(Err(status)) if gone(&status) => self.channel = None,
                Ok(Err(status)) => anyhow::bail!("the master refused {change:?}: {status}"),
                Err(_) => self.channel = None,
            }
        }
    }

    async fn channel(&mut self) -> anyhow::Result<Option<Channel>> {
        if self.channel.is_none() {
            let Bundle {
                trust_domain,
                authorities,
                certificate,
                key,
                masters,
                ..
            } = &*self.bundle;
            let clock = Clock::system();
            let authorities = Arc::new(Authorities::new(trust_domain.clone(), authorities.clone())?);
            let tls = client_config(authorities, certificate, key, Arc::new(move || clock.unix()))?;
            // Whatever is wrong while a master is killed and started is right soon.
            self.channel = connect(&Tcp::default(), masters, Arc::new(tls), Options::default())
                .await
                .ok()
                .map(|connected| connected.channel);
        }
        Ok(self.channel.clone())
    }
}

/// Whether the connection broke under a call, or the master was about to stop.
fn gone(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::Cancelled)
}

async fn call(channel: Channel, change: &Change) -> Result<(), Status> {
    let mut hosts = HostServiceClient::new(channel.clone());
    match change.clone() {
        Change::Enrolled { host } => hosts
            .enroll_host(EnrollHostRequest {
                name: host,
                ..EnrollHostRequest::default()
            })
            .await
            .map(drop),
        Change::Labelled { host, value } => {
            let set = [("round".to_owned(), value)].into();
            hosts
                .label_host(LabelHostRequest {
                    name: host,
                    set,
                    ..LabelHostRequest::default()
                })
                .await
                .map(drop)
        }
        Change::Noted { host, note } => hosts
            .note_host(NoteHostRequest { name: host, note })
            .await
            .map(drop),
        Change::Admitted { network, node } => {
            let request = AdmitMemberRequest {
                network_id: network,
                node,
                reason: "recorded".into(),
                lasts: None,
            };
            MemberServiceClient::new(channel)
                .admit_member(request)
                .await
                .map(drop)
        }
    }
}
