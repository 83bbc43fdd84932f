//! Who may call what: every method that the master describes, called as everybody there is.

#![allow(
    clippy::unwrap_used,
    reason = "a story that fails here says where, which is all there is to say"
)]

use std::collections::{BTreeMap, BTreeSet};

use picket_link::Connected;
use picket_master::{
    access::{ACCESS, Access, Callers},
    record::OperatorRole as Role,
};
use picket_pki::Refusal;
use picket_tests::{
    OperatorRole, Site,
    stranger::{Door, Stranger},
};
use prost_types::FileDescriptorProto;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test(start_paused = true)]
async fn every_method_that_reflection_shows_is_for_those_whom_the_table_names_and_for_nobody_else() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let admin = Stranger::with_admin_bundle(&site)
        .connect(Door::Admin)
        .await
        .unwrap();
    let methods = methods(&admin.channel).await;

    let table: BTreeSet<&str> = ACCESS.iter().map(|line| line.path).collect();
    let shown: BTreeSet<&str> = methods.iter().map(String::as_str).collect();
    assert_eq!(
        shown, table,
        "left: what the master shows; right: what the table has"
    );

    let mut callers = BTreeMap::new();
    for (role, wire) in [
        (Role::Requester, OperatorRole::Requester),
        (Role::Viewer, OperatorRole::Viewer),
        (Role::Operator, OperatorRole::Operator),
        (Role::Admin, OperatorRole::Admin),
    ] {
        let bundle = site.operator(&format!("a-{role}"), wire).await;
        let caller = Stranger::with_bundle(&site, &bundle);
        assert_eq!(caller.refused_at(Door::Agents).await, Refusal::WrongRole);
        callers.insert(role, caller.connect(Door::Admin).await.unwrap());
    }
    oslo.stop().await;
    let host = Stranger::with_identity_of(&site, &oslo);
    assert_eq!(host.refused_at(Door::Admin).await, Refusal::WrongRole);
    let host = host.connect(Door::Agents).await.unwrap();
    let nobody = Stranger::with_no_certificate(&site);
    for door in [Door::Admin, Door::Agents] {
        assert_eq!(nobody.refused_at(door).await, Refusal::NoCertificate);
    }

    let mut differs = Vec::new();
    for line in ACCESS {
        for (role, caller) in &callers {
            differs.extend(compare(line, &role.to_string(), line.callers.include(*role), caller).await);
        }
        differs.extend(compare(line, "host", line.callers.include_hosts(), &host).await);
    }
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_in_the_table_is_not_served_to_an_admin_either() {
    let site = Site::new().await;
    let admin = Stranger::with_admin_bundle(&site)
        .connect(Door::Admin)
        .await
        .unwrap();
    for path in [
        "/picket.admin.v1.HostService/Invent",
        "/picket.admin.v1.HostService/listhosts",
        "/x/y",
    ] {
        let refused = call(&admin.channel, path).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
}

#[test]
fn the_table_that_operators_read_is_the_one_that_holds() {
    const DOCS: &str = include_str!("../../../docs/operation.md");
    let mark = |yes: bool| if yes { "yes" } else { "" };
    let mut table =
        "| call | requester | viewer | operator | admin | host |\n| --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for Access { path, callers, .. } in ACCESS {
        let roles = Role::ALL.map(|role| format!(" {} |", mark(callers.include(role))));
        let short = path
            .trim_start_matches("/picket.admin.v1.")
            .trim_start_matches('/');
        let host = mark(Callers::include_hosts(*callers));
        let row = format!("| `{short}` |{} {host} |", roles.concat());
        table.push_str(&row.replace("|  |", "| |").replace("|  |", "| |"));
        table.push('\n');
    }
    assert!(
        DOCS.contains(&table),
        "docs/operation.md wants this table:\n\n{table}"
    );
}

/// What differs from the table when this caller makes this call with an empty message.
async fn compare(line: &Access, who: &str, expected: bool, caller: &Connected) -> Option<String> {
    let answer = call(&caller.channel, line.path).await;
    let code = answer.err().map(|status| status.code());
    let passed = match code {
        Some(Code::PermissionDenied) => false,
        Some(Code::Unauthenticated | Code::Unimplemented | Code::Unavailable) => {
            return Some(format!("{} as {who}: {code:?}", line.path));
        }
        _ => true,
    };
    (passed != expected).then(|| {
        format!(
            "{} as {who}: passed is {passed} ({code:?}), the table says {expected}",
            line.path
        )
    })
}

/// Makes any call with an empty message, and waits for the head of the answer.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the connection is open");
    let path = path.parse().expect("a path");
    client
        .server_streaming(Request::new(()), path, Empty)
        .await
        .map(drop)
}

/// Every method of every service the master describes.
async fn methods(channel: &Channel) -> BTreeSet<String> {
    let services = ask(channel, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(services) = services else {
        panic!("asked for services: {services:?}")
    };
    let mut methods = BTreeSet::new();
    for service in services.service {
        let file = ask(
            channel,
            MessageRequest::FileContainingSymbol(service.name.clone()),
        )
        .await;
        let MessageResponse::FileDescriptorResponse(files) = file else {
            panic!("asked for {}: {file:?}", service.name)
        };
        for file in files.file_descriptor_proto {
            let file: FileDescriptorProto = prost::Message::decode(file.as_slice()).unwrap();
            for described in &file.service {
                let name = format!("{}.{}", file.package(), described.name());
                if name == service.name {
                    methods.extend(
                        described
                            .method
                            .iter()
                            .map(|method| format!("/{name}/{}", method.name())),
                    );
                }
            }
        }
    }
    methods
}

async fn ask(channel: &Channel, message: MessageRequest) -> MessageResponse {
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(asked))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .expect("one question, one answer");
    answer.message_response.expect("it says something")
}

/// Writes nothing, and passes over whatever comes.
#[derive(Clone, Copy)]
struct Empty;

impl Codec for Empty {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Empty {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Empty {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes::Buf::advance(from, bytes::Buf::remaining(from));
        Ok(Some(()))
    }
}
