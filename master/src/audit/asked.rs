//! The one place where operators' refused changes come by: a layer over all services of the admin listener. It looks at
//! the method and the outcome, and takes what the caller asked for, its subject and reason, from the first bytes of the
//! request by the descriptors. A service has nothing to do for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use picket_link::Peer;
use picket_pki::Identity;
use picket_proto::{DESCRIPTORS, plain};
use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::refusal;
use crate::{
    access::{Effect, access},
    desk::Desk,
    store::Audit,
};

/// As much of a request is looked at.
const MOST_ASKED: usize = 4096;
/// The longest subject and reason that are taken from it.
const MOST_TEXT: usize = 256;
/// A frame of gRPC: whether it is compressed, and its length.
const FRAME: usize = 5;
/// The fields that say what a call is about.
const SUBJECTS: [&str; 10] = [
    "name",
    "id",
    "network_id",
    "node",
    "host",
    "operator",
    "owner",
    "device",
    "deployment",
    "subject",
];

/// Service and method of a call that asks for a change; of any other, nothing. What is in no line of the table changes
/// nothing, since it is not served.
fn changes(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/picket.admin.v1.")?;
    access(path)
        .is_some_and(|access| access.effect == Effect::Changes)
        .then_some(rest)
}

/// Puts refused changes into the audit trail.
#[derive(Clone)]
pub struct Refused(pub Arc<Desk>);

impl<S> Layer<S> for Refused {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting {
            inner,
            desk: Arc::clone(&self.0),
        }
    }
}

/// A service whose refusals are noted.
#[derive(Clone)]
pub struct Noting<S> {
    inner: S,
    desk: Arc<Desk>,
}

impl<S, B> Service<http::Request<Body>> for Noting<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let what = changes(request.uri().path()).map(str::to_owned);
        let peer = request.extensions().get::<Peer>().cloned();
        let (Some(what), Some(peer)) = (what, peer) else {
            return Box::pin(self.inner.call(request));
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keeping = Arc::clone(&seen);
        let request = request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    keep(&mut keeping.lock().unwrap_or_else(PoisonError::into_inner), data);
                }
                frame
            }))
        });
        let answer = self.inner.call(request);
        let desk = Arc::clone(&self.desk);
        Box::pin(async move {
            let response = answer.await?;
            if let Some(status) = Status::from_header_map(response.headers())
                && status.code() != Code::Ok
            {
                let asked = asked(&what, &seen.lock().unwrap_or_else(PoisonError::into_inner));
                let audit = Audit {
                    who: who(&peer.identity),
                    from: peer.address.to_string(),
                    what,
                    subject: asked.subject,
                    why: asked.why,
                    ..Audit::default()
                };
                refusal::note(&desk, audit, status.message()).await;
            }
            Ok(response)
        })
    }
}

fn keep(seen: &mut Vec<u8>, data: &[u8]) {
    let room = MOST_ASKED.saturating_sub(seen.len()).min(data.len());
    seen.extend(data.get(..room).unwrap_or_default());
}

fn who(identity: &Identity) -> String {
    match identity {
        Identity::Master => "master".to_owned(),
        Identity::Operator(name) => format!("operator/{name}"),
        Identity::Host(id) => format!("host/{id}"),
    }
}

/// What a request says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    subject: String,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Subject,
    Why,
}

/// By method, the fields that are looked at: a number, or two where the field is in a message in the request.
static FIELDS: LazyLock<BTreeMap<String, BTreeMap<Vec<u32>, Role>>> = LazyLock::new(fields);

fn fields() -> BTreeMap<String, BTreeMap<Vec<u32>, Role>> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors were made by the build");
    let mut messages = BTreeMap::new();
    for file in &files.file {
        for message in &file.message_type {
            messages.insert(format!(".{}.{}", file.package(), message.name()), message);
        }
    }
    let texts = |type_name: &str| {
        let message = messages.get(type_name).copied();
        message
            .into_iter()
            .flat_map(|message| &message.field)
            .filter(|field| field.r#type() == Type::String)
            .filter_map(|field| {
                let role = match field.name() {
                    "reason" => Role::Why,
                    name if SUBJECTS.contains(&name) => Role::Subject,
                    _ => return None,
                };
                Some((u32::try_from(field.number()).ok()?, field.name(), role))
            })
            .collect::<Vec<_>>()
    };
    let mut methods = BTreeMap::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let mut looked_at: BTreeMap<_, _> = texts(method.input_type())
                    .into_iter()
                    .map(|(number, _, role)| (vec![number], role))
                    .collect();
                let request = messages.get(method.input_type()).copied();
                let nested = request.into_iter().flat_map(|request| &request.field);
                for field in nested.filter(|field| field.r#type() == Type::Message) {
                    let outer = u32::try_from(field.number()).unwrap_or_default();
                    let named = texts(field.type_name())
                        .into_iter()
                        .filter(|(_, name, _)| *name == "name");
                    looked_at.extend(named.map(|(number, _, role)| (vec![outer, number], role)));
                }
                methods.insert(format!("{}/{}", service.name(), method.name()), looked_at);
            }
        }
    }
    methods
}

/// What the first bytes of a request's body say.
fn asked(method: &str, body: &[u8]) -> Asked {
    let mut asked = Asked::default();
    let (Some(fields), Some((frame, message))) = (FIELDS.get(method), body.split_at_checked(FRAME)) else {
        return asked;
    };
    // Nothing of ours compresses; what is compressed stays unread.
    if frame.first() == Some(&0) {
        read(message, &mut Vec::new(), fields, &mut asked);
    }
    asked
}

fn read(mut message: &[u8], at: &mut Vec<u32>, fields: &BTreeMap<Vec<u32>, Role>, asked: &mut Asked) {
    while let Some((number, value)) = field(&mut message) {
        at.push(number);
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        match (fields.get(at.as_slice()), text, value) {
            (Some(Role::Subject), Some(text), _) if !text.is_empty() => {
                if !asked.subject.is_empty() {
                    asked.subject.push('/');
                }
                asked.subject = plain(&(std::mem::take(&mut asked.subject) + text), MOST_TEXT);
            }
            (Some(Role::Why), Some(text), _) => asked.why = plain(text, MOST_TEXT),
            (None, _, Some(inner))
                if at.len() == 1 && fields.keys().any(|path| path.len() == 2 && path.starts_with(at)) =>
            {
                read(inner, at, fields, asked);
            }
            (Some(_) | None, _, _) => {}
        }
        at.pop();
    }
}

/// Takes one field off the front: its number, and its bytes when it is a text or a message. What is cut short is the end.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let tag = varint(message)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let skip = |message: &mut &'a [u8], length: usize| {
        let (front, rest) = message.split_at_checked(length)?;
        *message = rest;
        Some(front)
    };
    match tag & 7 {
        0 => varint(message).map(|_| (number, None)),
        1 => skip(message, 8).map(|_| (number, None)),
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            // A message that goes on behind what was kept is read as far as it goes.
            let length = length.min(message.len());
            skip(message, length).map(|front| (number, Some(front)))
        }
        5 => skip(message, 4).map(|_| (number, None)),
        _ => None,
    }
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use picket_proto::wire::admin::{
        AdmitMemberRequest, ApplyDeploymentRequest, ApproveMemberRequest, BanHostRequest, KillRequest,
        KillScope, NoteHostRequest, RegisterDeviceRequest, RemoveDeviceRequest, Site,
    };

    use super::*;

    #[test]
    fn subject_and_reason_are_taken_from_the_request_and_nothing_else() {
        let ban = BanHostRequest {
            name: "oslo".into(),
            reason: "lost".into(),
        };
        let of = |method, bytes: Vec<u8>| asked(method, &framed(&bytes));
        let seen = of("HostService/BanHost", ban.encode_to_vec());
        assert_eq!((seen.subject.as_str(), seen.why.as_str()), ("oslo", "lost"));
        let admit = AdmitMemberRequest {
            network_id: "8056c2e21c000001".into(),
            node: "edge-07".into(),
            reason: "new".into(),
            lasts: None,
        };
        let seen = of("MemberService/AdmitMember", admit.encode_to_vec());
        assert_eq!(seen.subject, "8056c2e21c000001/edge-07");
        let remove = RemoveDeviceRequest {
            device: "anas-laptop".into(),
            reason: "lost".into(),
        };
        let seen = of("DeviceService/RemoveDevice", remove.encode_to_vec());
        assert_eq!(
            (seen.subject.as_str(), seen.why.as_str()),
            ("anas-laptop", "lost")
        );
        let register = RegisterDeviceRequest {
            node: "39966434ba".into(),
            name: "anas-laptop".into(),
            owner: "ana".into(),
        };
        let seen = of("DeviceService/RegisterDevice", register.encode_to_vec());
        assert_eq!(seen.subject, "39966434ba/anas-laptop/ana");
        let approve = ApproveMemberRequest {
            network_id: "8056c2e21c000001".into(),
            node: "anas-laptop".into(),
            reason: "on call".into(),
            grant: 1,
        };
        let seen = of("MemberService/ApproveMember", approve.encode_to_vec());
        assert_eq!(
            (seen.subject.as_str(), seen.why.as_str()),
            ("8056c2e21c000001/anas-laptop", "on call")
        );
        let kill = KillRequest {
            scope: KillScope::Host.into(),
            subject: "edge-07".into(),
            reason: "a leak".into(),
            ..KillRequest::default()
        };
        let seen = of("KillService/Kill", kill.encode_to_vec());
        assert_eq!((seen.subject.as_str(), seen.why.as_str()), ("edge-07", "a leak"));
        let note = NoteHostRequest {
            name: "oslo".into(),
            note: "hush".into(),
        };
        assert_eq!(of("HostService/NoteHost", note.encode_to_vec()).subject, "oslo");
        let site = Site {
            name: "dmz".into(),
            ..Site::default()
        };
        let apply = ApplyDeploymentRequest { site: Some(site) };
        assert_eq!(
            of("DeploymentService/ApplyDeployment", apply.encode_to_vec()).subject,
            "dmz"
        );
    }

    #[test]
    fn a_request_that_is_cut_or_no_message_is_read_as_far_as_it_goes() {
        let ban = BanHostRequest {
            name: "oslo".into(),
            reason: "lost".into(),
        };
        let bytes = framed(&ban.encode_to_vec());
        for cut in 0..bytes.len() {
            let seen = asked("HostService/BanHost", &bytes[..cut]);
            assert!("oslo".starts_with(&seen.subject), "{seen:?}");
        }
        assert_eq!(asked("HostService/BanHost", &[0xff; 64]), Asked::default());
        assert_eq!(asked("HostService/None", &bytes), Asked::default());
    }

    #[test]
    fn every_method_that_changes_something_says_what_it_is_about() {
        // There is one clock, one CA that signs, and one caller.
        let plain_enough = |method: &str| {
            method.starts_with("ClockService/")
                || method.starts_with("CaService/")
                || method == "OperatorService/RenewOperator"
        };
        for (method, fields) in FIELDS.iter() {
            if changes(&format!("/picket.admin.v1.{method}")).is_some() && !plain_enough(method) {
                let about = fields.values().any(|role| *role == Role::Subject);
                assert!(about, "no field of {method} is its subject: see SUBJECTS");
            }
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), message].concat()
    }
}
