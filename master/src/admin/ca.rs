//! The CA: looking, and putting another in its place.

use std::sync::Arc;

use picket_pki::{Certificate, Fingerprint, Issuer, Root as Certified};
use picket_proto::{
    to_wire_time,
    wire::admin::{
        self as wire, ActivateCaRequest, ActivateCaResponse, GetCaRequest, GetCaResponse, PrepareCaRequest,
        PrepareCaResponse, RetireCaRequest, RetireCaResponse, ca_service_server::CaService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    ca::{self, CaRecord, Der, Known, Phase, Root, Straggler, Vouched, keys},
    caller::operator,
    desk::{Actor, Desk},
    event::Severity,
    record::{DeviceRecord, HostRecord, HostStanding, Record as _, key},
    refused::Refused,
    signer::{self, SignerError},
    store::{Guard, Revision},
};

/// The most hosts that are named in one sentence; `picketctl ca status` names all.
const MOST_NAMED: usize = 50;

/// The service, over the desk.
#[derive(Debug)]
pub struct Cas(pub Arc<Desk>);

#[tonic::async_trait]
impl CaService for Cas {
    async fn get_ca(&self, request: Request<GetCaRequest>) -> Result<Response<GetCaResponse>, Status> {
        operator(&self.0, &request)?;
        let (record, _) = self.0.succession();
        let stragglers = self.stragglers(&record).await?;
        Ok(Response::new(GetCaResponse {
            cas: record.roots.iter().map(shown).collect(),
            stragglers: stragglers.into_iter().map(straggler).collect(),
        }))
    }

    async fn prepare_ca(
        &self,
        request: Request<PrepareCaRequest>,
    ) -> Result<Response<PrepareCaResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let desk = &self.0;
        let _turn = desk.turn.lock().await;
        let (mut record, revision) = desk.succession();
        let mut lost = None;
        if let Some(prepared) = record.prepared() {
            let of = prepared.fingerprint;
            let why = self
                .blocking(move |desk| Ok(keys::lost(&desk.signer, desk.ca.data_dir(), of)))
                .await?;
            let Some(error) = why else {
                return Ok(Response::new(PrepareCaResponse {
                    ca: Some(shown(prepared)),
                    made: false,
                    replaced: String::new(),
                }));
            };
            lost = Some((of, crate::status::chain(&error)));
        }
        if record.outgoing().next().is_some() {
            let first = "the CA before the active one is trusted still; retire it first (`picketctl ca rotate retire`)";
            return Err(Refused::NotNow(first.to_owned()).into());
        }
        let (before, now) = (record.clone(), desk.now());
        let successor = self
            .blocking(move |desk| keys::next(&desk.signer, desk.ca.data_dir(), &before, now))
            .await?;
        let der = successor.certificate().to_vec();
        let vouched = desk.signer.sign(move |signer| signer.cross_sign(&der, now));
        let vouched = Vouched {
            by: record.active().fingerprint,
            certificate: Der(vouched.await.map_err(Refused::Authority)?),
        };
        // Nothing was signed with the one whose key is lost.
        record.give_up_prepared();
        record.prepare(successor.certificate(), vouched, now);
        let in_place = lost.as_ref().map_or_else(String::new, |(ca, why)| {
            format!(" in place of {ca}, whose key cannot be used: {why}")
        });
        self.put(&record, revision, &actor, "ca.prepare", in_place.trim_start())
            .await?;
        if let Some((ca, _)) = lost.clone() {
            self.blocking(move |desk| {
                keys::put_aside(desk.ca.data_dir(), ca);
                Ok(())
            })
            .await?;
        }
        let message = format!(
            "the CA {} is prepared by {}{in_place}; hosts are told, and `picketctl ca status` says which have it",
            successor.fingerprint(),
            actor.name()
        );
        let severity = if lost.is_some() {
            Severity::Warning
        } else {
            Severity::Notice
        };
        desk.say(severity, "ca.prepared", "ca", &message);
        Ok(Response::new(PrepareCaResponse {
            ca: record.prepared().map(shown),
            made: true,
            replaced: lost.map_or_else(String::new, |(ca, _)| ca.to_string()),
        }))
    }

    async fn activate_ca(
        &self,
        request: Request<ActivateCaRequest>,
    ) -> Result<Response<ActivateCaResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let _turn = self.0.turn.lock().await;
        let answer = if asked.compromised {
            self.replace(&actor).await?
        } else {
            self.activate(&actor, asked.force).await?
        };
        Ok(Response::new(answer))
    }

    async fn retire_ca(
        &self,
        request: Request<RetireCaRequest>,
    ) -> Result<Response<RetireCaResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let RetireCaRequest { force, compromised } = request.into_inner();
        let desk = &self.0;
        let _turn = desk.turn.lock().await;
        let (mut record, revision) = desk.succession();
        let retired = record.retire(compromised, desk.now());
        if retired.is_empty() {
            let none = "there is no CA before the active one to retire; see `picketctl ca status`";
            return Err(Refused::NotNow(none.to_owned()).into());
        }
        let behind = ca::behind(&self.stragglers(&record).await?);
        let operators = if compromised {
            self.operators_behind(record.active())
        } else {
            Vec::new()
        };
        if !behind.is_empty() && !force && !compromised {
            let refused = format!(
                "{} hosts work under a certificate of the CA before, and could only renew until they have another: {}; agents move within the hour that they are online. \
                 Wait for them, or retire it with --force: they recover when they come back",
                behind.len(),
                named(&behind)
            );
            return Err(Refused::NotNow(refused).into());
        }
        let (what, kind) = if compromised {
            ("ca.distrust", "ca.distrusted")
        } else {
            ("ca.retire", "ca.retired")
        };
        self.put(&record, revision, &actor, what, &forced(force, &behind))
            .await?;
        let message = format!(
            "{} by {}: {}{}",
            if compromised {
                "trusted no more, not even for what it signed,"
            } else {
                "retired"
            },
            actor.name(),
            retired
                .iter()
                .map(Fingerprint::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            match (behind.is_empty(), compromised) {
                (true, _) => String::new(),
                (false, true) => format!("; these need a new bundle: {}", named(&behind)),
                (false, false) => format!("; these can only renew until they did: {}", named(&behind)),
            }
        ) + &shut_out(&operators);
        let severity = match (compromised, behind.is_empty()) {
            (true, _) => Severity::Alert,
            (false, false) => Severity::Warning,
            (false, true) => Severity::Notice,
        };
        desk.say(severity, kind, "ca", &message);
        let cas = record
            .roots
            .iter()
            .filter(|root| retired.contains(&root.fingerprint));
        let (behind, need_bundle) = if compromised {
            (Vec::new(), behind)
        } else {
            (behind, Vec::new())
        };
        Ok(Response::new(RetireCaResponse {
            cas: cas.map(shown).collect(),
            behind,
            need_bundle,
            operators_need_bundle: operators,
        }))
    }
}

impl Cas {
    async fn activate(&self, actor: &Actor, force: bool) -> Result<ActivateCaResponse, Refused> {
        let desk = &self.0;
        let (mut record, revision) = desk.succession();
        let Some(prepared) = record.prepared().map(|root| root.fingerprint) else {
            let none = "no CA is prepared; make one with `picketctl ca rotate prepare`, and see `picketctl ca status`";
            return Err(Refused::NotNow(none.to_owned()));
        };
        let lacking = ca::lacking(&self.stragglers(&record).await?, prepared);
        if !lacking.is_empty() && !force {
            return Err(Refused::NotNow(format!(
                "{} hosts have not acknowledged the new CA: {}; wait until they have been online, or activate it with --force: \
                 they find the way to it by what the CA before signed for it",
                lacking.len(),
                named(&lacking)
            )));
        }
        // Nothing is on record that cannot come into force, nor while it cannot.
        let now = desk.now();
        let tried = self.blocking(move |desk| {
            if let Some(error) = keys::lost(&desk.signer, desk.ca.data_dir(), prepared) {
                return Ok(Err(lost_key(prepared, &error)));
            }
            let authority = keys::load(&desk.signer, desk.ca.data_dir(), prepared)?;
            Ok(signer::try_sign(&authority, now).map_err(Refused::Authority))
        });
        tried.await??;
        record.activate(now);
        self.put(&record, revision, actor, "ca.activate", &forced(force, &lacking))
            .await?;
        let (severity, without) = if lacking.is_empty() {
            (Severity::Notice, String::new())
        } else {
            (
                Severity::Warning,
                format!("; these had not acknowledged it: {}", named(&lacking)),
            )
        };
        let message = format!(
            "the CA {prepared} signs from here on, by {}{without}",
            actor.name()
        );
        desk.say(severity, "ca.activated", "ca", &message);
        Ok(ActivateCaResponse {
            ca: Some(shown(record.active())),
            lacking,
            need_bundle: Vec::new(),
        })
    }

    /// Puts another CA in the place of one whose key is in wrong hands. A key that lay beside it is not used either.
    async fn replace(&self, actor: &Actor) -> Result<ActivateCaResponse, Refused> {
        let desk = &self.0;
        let (mut record, revision) = desk.succession();
        let now = desk.now();
        let before = record.clone();
        let successor = self
            .blocking(move |desk| keys::create(&desk.signer, desk.ca.data_dir(), &before, now))
            .await?;
        record.replace(successor.certificate(), now);
        let need_bundle: Vec<String> = self.active_hosts().into_iter().map(|(_, name)| name).collect();
        self.put(
            &record,
            revision,
            actor,
            "ca.replace",
            "the key of the CA before is in wrong hands",
        )
        .await?;
        let message = format!(
            "the CA was replaced by {}, since its key is in wrong hands: {} signs, and every certificate from before opens nothing. \
             Operators get in with `picket-master admin-bundle` on the master's machine; {} hosts need a bundle (`picketctl host bundle NAME`): {}",
            actor.name(),
            successor.fingerprint(),
            need_bundle.len(),
            named(&need_bundle)
        );
        desk.say(Severity::Alert, "ca.replaced", "ca", &message);
        Ok(ActivateCaResponse {
            ca: Some(shown(record.active())),
            lacking: Vec::new(),
            need_bundle,
        })
    }

    /// Keeps the succession, and brings it into force.
    async fn put(
        &self,
        record: &CaRecord,
        revision: Option<Revision>,
        actor: &Actor,
        what: &str,
        why: &str,
    ) -> Result<(), Refused> {
        let guard = revision.map_or(Guard::Absent(ca::key()), |revision| {
            Guard::At(ca::key(), revision)
        });
        let audit = actor.does(
            what,
            record
                .roots
                .last()
                .map_or(String::new(), |root| root.fingerprint.to_string()),
            why,
        );
        self.0.commit(vec![guard], vec![record.put()], audit).await?;
        // It is on record and is tried again each minute; whoever asked for it is to know that it does not hold yet.
        self.0.settle().await.map_err(|error| {
            let why = crate::status::chain(&error);
            self.0.ca.changed();
            Refused::NotNow(format!(
                "it is on record, and the CA cannot be used yet; it is tried each minute: {why}"
            ))
        })
    }

    /// The hosts that are not where the rotation is, by name.
    async fn stragglers(&self, record: &CaRecord) -> Result<Vec<Straggler>, Refused> {
        let desk = Arc::clone(&self.0);
        let active = record.active().clone();
        let hosts = self.active_hosts();
        let known = tokio::task::spawn_blocking(move || {
            let known = hosts.into_iter().map(|(id, name)| {
                let entry = desk.store.get(&key::host(id))?;
                let host = entry.as_ref().map(HostRecord::of).transpose()?;
                Ok(Known {
                    name,
                    holds: desk.holds(id),
                    under_earlier: host.is_some_and(|host| is_under_earlier(&desk, &active, &host)),
                })
            });
            known.collect::<Result<Vec<_>, Refused>>()
        });
        let known = known
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(ca::stragglers(record, known))
    }

    /// The devices of operators that may come in under a certificate of a CA before the active one, as OPERATOR/DEVICE.
    fn operators_behind(&self, active: &Root) -> Vec<String> {
        let now = self.0.now();
        let views = self.0.views.read();
        let mut behind = Vec::new();
        for operator in views.roster.operators_after(None) {
            let good = operator.devices.iter().filter(|device| device.is_good(now));
            let old = good.filter(|device| operator.revoked.is_none() && is_of_earlier(device, active));
            behind.extend(old.map(|device| format!("{}/{}", operator.name, device.name)));
        }
        behind
    }

    /// The hosts that may come in, by name.
    fn active_hosts(&self) -> Vec<(picket_proto::host::HostId, String)> {
        let views = self.0.views.read();
        let active = views
            .roster
            .hosts()
            .filter(|host| host.record.standing == HostStanding::Active);
        active
            .map(|host| (host.record.id, host.record.name.to_string()))
            .collect()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk) -> Result<T, SignerError> + Send + 'static,
    ) -> Result<T, Refused> {
        let desk = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&desk)).await;
        Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
    }
}

/// Whether what a host works under, or the bundle of one that never worked, was signed by a CA before the active one.
fn is_under_earlier(desk: &Desk, active: &Root, host: &HostRecord) -> bool {
    match (&host.pins.current, &host.pins.pending, &host.pins.bundle) {
        (Some(pin), _, _) | (None, Some(pin), _) => {
            let der = data_encoding::HEXLOWER.decode(pin.certificate.as_bytes());
            let issuer = der.ok().and_then(|der| picket_pki::Certificate::parse(&der).ok());
            issuer.map(|certificate| certificate.issuer)
                != picket_pki::Issuer::of_authority(&active.certificate.0).ok()
        }
        (None, None, Some(bundle)) => {
            // One that has ended gets nobody in, whoever signed it.
            bundle.not_after >= desk.now() && !active.signed_since(bundle.not_after)
        }
        (None, None, None) => false,
    }
}

/// Whether a CA before the active one signed what an operator's device works under.
fn is_of_earlier(device: &DeviceRecord, active: &Root) -> bool {
    let der = data_encoding::HEXLOWER.decode(device.current.certificate.as_bytes());
    match der.ok().and_then(|der| Certificate::parse(&der).ok()) {
        Some(certificate) => Issuer::of_authority(&active.certificate.0).ok() != Some(certificate.issuer),
        // A bundle's certificate is not kept: it was signed by the CA of its time.
        None => active
            .activated_at
            .is_some_and(|since| device.issued_at.is_none_or(|at| at < since)),
    }
}

fn shut_out(operators: &[String]) -> String {
    if operators.is_empty() {
        return String::new();
    }
    format!(
        "; these operators get in no more until their device is added again (`picketctl operator add NAME --device DEVICE`), or \
         by `picket-master admin-bundle`: {}",
        named(operators)
    )
}

fn lost_key(ca: Fingerprint, error: &SignerError) -> Refused {
    Refused::NotNow(format!(
        "the key of the prepared CA {ca} cannot be used: {}; restore it from a backup, or have another prepared in its place: \
         `picketctl ca rotate prepare`",
        crate::status::chain(error)
    ))
}

fn forced(force: bool, names: &[String]) -> String {
    if force && !names.is_empty() {
        format!("forced, although not ready: {}", named(names))
    } else {
        String::new()
    }
}

fn named(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(MOST_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = names.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more (`picketctl ca status`)"));
    }
    text
}

fn straggler(straggler: Straggler) -> wire::CaStraggler {
    wire::CaStraggler {
        name: straggler.name,
        lacks: straggler.lacks.iter().map(Fingerprint::to_string).collect(),
        under_earlier: straggler.under_earlier,
    }
}

fn shown(root: &Root) -> wire::Ca {
    let validity = Certified::parse(&root.certificate.0)
        .ok()
        .map(|root| root.validity);
    wire::Ca {
        fingerprint: root.fingerprint.to_string(),
        phase: match root.phase {
            Phase::Prepared => wire::CaPhase::Prepared,
            Phase::Active => wire::CaPhase::Active,
            Phase::Outgoing => wire::CaPhase::Outgoing,
            Phase::Retired => wire::CaPhase::Retired,
            Phase::Distrusted => wire::CaPhase::Distrusted,
        }
        .into(),
        not_before: validity.map(|validity| to_wire_time(validity.not_before)),
        not_after: validity.map(|validity| to_wire_time(validity.not_after)),
        prepared_at: Some(to_wire_time(root.prepared_at)),
        activated_at: root.activated_at.map(to_wire_time),
        retired_at: root.retired_at.map(to_wire_time),
        certificate: root.certificate.0.clone().into(),
        cross_signed: root
            .vouched
            .as_ref()
            .map(|vouched| vouched.certificate.0.clone())
            .unwrap_or_default()
            .into(),
    }
}
