//! Bodies that are too long for the session: sections go up by Report, documents come down by Fetch.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use picket_proto::{
    beat::{Digest, MOST_DOCUMENT_BYTES, SectionKind},
    document::{Document, Kind},
    wire::agent as wire,
};
use tokio::time;
use tonic::transport::Channel;

use crate::{
    master::{Client, MasterError},
    observed::Body,
};

/// How often a transfer goes on from where it was broken off.
const ATTEMPTS: usize = 4;
/// How long one attempt may take: 4 MiB at a slow site's 64 KiB a second, and half as much again.
const ATTEMPT: Duration = Duration::from_secs(100);
const REPORT: &str = "take a report";
const FETCH: &str = "send a document";

/// Sends a section's body. Goes on from what the master holds.
pub(super) async fn report(
    channel: Channel,
    kind: SectionKind,
    body: &Body,
    chunk: usize,
) -> Result<(), MasterError> {
    let mut client = Client::new(channel);
    let mut from = 0;
    for _ in 0..ATTEMPTS {
        let messages = chunks(kind, body, from, chunk);
        let answer = time::timeout(ATTEMPT, client.report(tokio_stream::iter(messages))).await;
        let answer = answer.map_err(|_| MasterError::Silent { what: REPORT })?;
        let held = answer
            .map_err(|status| MasterError::call(REPORT, status))?
            .into_inner()
            .held;
        let held = usize::try_from(held).unwrap_or(usize::MAX);
        if held >= body.bytes.len() {
            return Ok(());
        }
        from = held;
    }
    Err(MasterError::Ended(format!(
        "it held {from} of {} bytes of the {kind} report",
        body.bytes.len()
    )))
}

/// The messages that carry a body from an offset on.
fn chunks(kind: SectionKind, body: &Body, from: usize, chunk: usize) -> Vec<wire::ReportRequest> {
    let message = |offset: usize| wire::ReportRequest {
        kind: wire::SectionKind::from(kind).into(),
        sha256: Bytes::copy_from_slice(&body.digest.0),
        size: body.bytes.len() as u64,
        offset: offset as u64,
        chunk: body.bytes.slice(offset..body.bytes.len().min(offset + chunk)),
    };
    (from..body.bytes.len())
        .step_by(chunk.max(1))
        .map(message)
        .collect()
}

/// Reads the body of an announced document, and checks that it is the announced one.
pub(super) async fn fetch(channel: Channel, document: &Document) -> Result<Bytes, MasterError> {
    let size = usize::try_from(document.size).unwrap_or(usize::MAX);
    if size > MOST_DOCUMENT_BYTES {
        return Err(MasterError::Ended(format!(
            "its {} document has {size} bytes, and an agent reads {MOST_DOCUMENT_BYTES}",
            document.kind
        )));
    }
    let mut client = Client::new(channel);
    let mut body = BytesMut::with_capacity(size);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match time::timeout(ATTEMPT, fetch_on(&mut client, document, size, &mut body)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(MasterError::Silent { what: FETCH }),
        }
        if body.len() == size {
            break;
        }
    }
    if body.len() < size {
        return Err(
            last.unwrap_or_else(|| MasterError::Ended(format!("it sent {} of {size} bytes", body.len())))
        );
    }
    let body = body.freeze();
    if Digest::of(&body) != document.digest {
        return Err(other_body(document.kind));
    }
    Ok(body)
}

async fn fetch_on(
    client: &mut Client,
    document: &Document,
    size: usize,
    body: &mut BytesMut,
) -> Result<(), MasterError> {
    let request = wire::FetchRequest {
        kind: wire::DocumentKind::from(document.kind).into(),
        lineage: Bytes::copy_from_slice(&document.stamp.lineage.0),
        generation: document.stamp.generation,
        sha256: Bytes::copy_from_slice(&document.digest.0),
        offset: body.len() as u64,
    };
    let failed = |status| MasterError::call(FETCH, status);
    let mut chunks = client.fetch(request).await.map_err(failed)?.into_inner();
    while let Some(part) = chunks.message().await.map_err(failed)? {
        if part.offset != body.len() as u64 || body.len() + part.chunk.len() > size {
            return Err(other_body(document.kind));
        }
        body.extend_from_slice(&part.chunk);
    }
    Ok(())
}

fn other_body(kind: Kind) -> MasterError {
    MasterError::Ended(format!("the {kind} document it sent is not the one it announced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_on_from_what_the_master_holds_and_leaves_nothing_out() {
        let body = Body::from(Bytes::from((0..=255).cycle().take(150_000).collect::<Vec<u8>>()));
        for from in [0, 1, 65_536, 149_999] {
            let messages = chunks(SectionKind::Controller, &body, from, 65_536);
            let sent: Vec<u8> = messages
                .iter()
                .flat_map(|message| message.chunk.to_vec())
                .collect();
            assert_eq!(sent, body.bytes[from..]);
            assert!(messages.iter().all(|message| message.chunk.len() <= 65_536));
            assert_eq!(messages[0].offset, from as u64);
        }
    }
}
