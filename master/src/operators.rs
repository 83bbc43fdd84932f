//! Operators: their roles, and one certificate for each device they work at.
//!
//! Plain functions of a record, and below them the thin part that commits. A device's certificate follows the one before
//! it as a host's does: the same key gets the same certificate, and the first call under the new one ends the old one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use picket_link::Peer;
use picket_pki::{Fingerprint, OperatorName, PinKind, Standing, lifetime};
use picket_proto::host::Name;

use crate::{
    desk::{Actor, Desk},
    record::{DeviceRecord, OperatorRecord, OperatorRole, Pin, Record as _, Revocation, key},
    refused::Refused,
    renewal::Renewal,
    store::{Audit, CommitError, Guard},
};

/// How many devices an operator has at most.
pub const MOST_DEVICES: usize = 16;
/// The most certificates kept of one operator that are refused with a reason; older ones are refused as unknown.
const MOST_REFUSED: usize = 64;
/// A device gets at most one certificate for a new key in this time: each costs a record in the journal.
const SPACING: SignedDuration = SignedDuration::from_secs(60);
/// How often a change is tried again when someone else changed the same record meanwhile.
const MOST_TRIES: usize = 16;

/// An operator with its first device.
#[must_use]
pub fn new(name: &str, role: OperatorRole, device: DeviceRecord, by: &str, now: Timestamp) -> OperatorRecord {
    OperatorRecord {
        name: name.to_owned(),
        role,
        devices: vec![device],
        revoked: None,
        added_at: Some(now),
        added_by: by.to_owned(),
        spent: Vec::new(),
        cut: Vec::new(),
    }
}

/// A device that was just given its certificate.
#[must_use]
pub fn device(name: &Name, pin: Pin, now: Timestamp) -> DeviceRecord {
    DeviceRecord {
        name: name.clone(),
        current: pin,
        pending: None,
        issued_at: Some(now),
        revoked: None,
    }
}

/// Adds a device to an operator. One of that name that has ended or was revoked gives way.
///
/// # Errors
/// When there is a good one of that name, or no room.
pub fn add_device(record: &mut OperatorRecord, device: DeviceRecord, now: Timestamp) -> Result<(), Refused> {
    let name = &record.name;
    if let Some(there) = record.devices.iter().find(|there| there.name == device.name)
        && there.is_good(now)
    {
        return Err(Refused::Exists(format!(
            "operator {name} has a device `{0}` already, with a certificate of its own; choose another name for this one, or \
             `picketctl operator revoke {name} --device {0} --reason ...` first",
            there.name
        )));
    }
    drop_device(record, &device.name);
    if record.devices.len() >= MOST_DEVICES {
        let idle = record.devices.iter().find(|there| !there.is_good(now));
        let Some(idle) = idle.map(|there| there.name.clone()) else {
            return Err(Refused::NotNow(format!(
                "operator {} has {MOST_DEVICES} devices, which is as many as there can be; revoke one that is not used",
                record.name
            )));
        };
        drop_device(record, &idle);
    }
    record.devices.push(device);
    Ok(())
}

/// Makes an operator of whatever there is: an admin that is let in with this device. For the master's own machine, where
/// whoever asks has the CA's key.
#[must_use]
pub fn let_in(
    record: Option<OperatorRecord>,
    name: &str,
    device: DeviceRecord,
    now: Timestamp,
) -> OperatorRecord {
    let Some(mut record) = record else {
        return new(name, OperatorRole::Admin, device, "local", now);
    };
    if record.revoked.is_some() {
        start_over(&mut record);
    }
    record.role = OperatorRole::Admin;
    drop_device(&mut record, &device.name);
    while record.devices.len() >= MOST_DEVICES {
        let gives_way = record.devices.iter().find(|there| !there.is_good(now));
        let oldest = record.devices.iter().min_by_key(|there| there.issued_at);
        let Some(name) = gives_way.or(oldest).map(|there| there.name.clone()) else {
            break;
        };
        drop_device(&mut record, &name);
    }
    record.devices.push(device);
    record
}

/// Takes a revoked operator in again, with none of the certificates it had.
pub fn start_over(record: &mut OperatorRecord) {
    let all: Vec<Fingerprint> = record
        .devices
        .drain(..)
        .flat_map(|device| fingerprints(&device))
        .collect();
    let spent = std::mem::take(&mut record.spent);
    remember(&mut record.cut, spent.into_iter().chain(all));
    record.revoked = None;
}

fn drop_device(record: &mut OperatorRecord, name: &Name) {
    let Some(at) = record.devices.iter().position(|device| &device.name == name) else {
        return;
    };
    let device = record.devices.remove(at);
    let list = if device.revoked.is_some() {
        &mut record.cut
    } else {
        &mut record.spent
    };
    remember(list, fingerprints(&device));
}

fn fingerprints(device: &DeviceRecord) -> Vec<Fingerprint> {
    let pending = device.pending.iter().map(|pin| pin.fingerprint);
    std::iter::once(device.current.fingerprint)
        .chain(pending)
        .collect()
}

fn remember(list: &mut Vec<Fingerprint>, more: impl IntoIterator<Item = Fingerprint>) {
    list.extend(more);
    if list.len() > MOST_REFUSED {
        list.drain(..list.len() - MOST_REFUSED);
    }
}

/// Revokes one device. Returns whether it was good before.
///
/// # Errors
/// When there is none of that name.
pub fn revoke_device(
    record: &mut OperatorRecord,
    device: &Name,
    revocation: &Revocation,
) -> Result<bool, Refused> {
    let operator = record.name.clone();
    let found = record.devices.iter_mut().find(|there| &there.name == device);
    let device = found.ok_or_else(|| {
        Refused::invalid(
            "device",
            format_args!(
                "operator {operator} has none called `{device}`; see `picketctl operator show {operator}`"
            ),
        )
    })?;
    let was_good = device.revoked.is_none();
    if was_good {
        device.revoked = Some(revocation.clone());
    }
    Ok(was_good)
}

/// The device whose certificate this is, in use or not used yet.
#[must_use]
pub fn device_of<'a>(record: &'a OperatorRecord, fingerprint: &Fingerprint) -> Option<&'a DeviceRecord> {
    let is = |device: &&DeviceRecord| fingerprints(device).contains(fingerprint);
    record.devices.iter().find(is)
}

/// Decides on a request by `key`, made at `now` under the certificate with `fingerprint`.
#[must_use]
pub fn renew(
    record: &OperatorRecord,
    fingerprint: &Fingerprint,
    key: &Fingerprint,
    now: Timestamp,
) -> Renewal {
    let device = device_of(record, fingerprint).filter(|device| device.revoked.is_none());
    let Some(device) = device.filter(|_| record.revoked.is_none()) else {
        return Renewal::NotPinned;
    };
    if let Some(pending) = device.pending.as_ref().filter(|pending| &pending.key == key) {
        return Renewal::Again(pending.clone());
    }
    if &device.current.key == key {
        // A key that came in a bundle travelled, and its certificate is not kept.
        return match device.current.certificate.as_str() {
            "" => Renewal::BundleKey,
            _ => Renewal::Again(device.current.clone()),
        };
    }
    match &device.pending {
        Some(unused) if now < unused.not_after - lifetime::OPERATOR + SPACING => Renewal::TooSoon,
        Some(_) | None => Renewal::Issue,
    }
}

/// Makes `pin` the device's next certificate; one that was made before and never used is spent.
pub fn offer(record: &mut OperatorRecord, fingerprint: &Fingerprint, pin: Pin) {
    let device = record
        .devices
        .iter_mut()
        .find(|device| fingerprints(device).contains(fingerprint));
    let unused = device.and_then(|device| device.pending.replace(pin));
    remember(&mut record.spent, unused.map(|pin| pin.fingerprint));
}

/// Makes a certificate that was not used yet the one in use, and spends the one before. Returns whether it did.
pub fn promote(record: &mut OperatorRecord, fingerprint: &Fingerprint) -> bool {
    let is_pending = |device: &&mut DeviceRecord| {
        let pending = device.pending.as_ref();
        pending.is_some_and(|pin| &pin.fingerprint == fingerprint)
    };
    let Some(device) = record.devices.iter_mut().find(is_pending) else {
        return false;
    };
    let Some(pending) = device.pending.take() else {
        return false;
    };
    device.issued_at = Some(pending.not_after - lifetime::OPERATOR);
    let old = std::mem::replace(&mut device.current, pending);
    remember(&mut record.spent, [old.fingerprint]);
    true
}

/// Every certificate of an operator with what it is worth.
#[must_use]
pub fn standings(record: &OperatorRecord) -> Vec<(Fingerprint, Standing)> {
    let spent = if record.revoked.is_some() {
        Standing::Banned
    } else {
        Standing::Spent
    };
    let refused = record.spent.iter().map(|fingerprint| (*fingerprint, spent));
    let cut = record
        .cut
        .iter()
        .map(|fingerprint| (*fingerprint, Standing::Banned));
    let devices = record.devices.iter().flat_map(|device| {
        let standing = if record.revoked.is_some() || device.revoked.is_some() {
            Standing::Banned
        } else {
            Standing::Pinned(PinKind::Operator)
        };
        fingerprints(device)
            .into_iter()
            .map(move |fingerprint| (fingerprint, standing))
    });
    refused.chain(cut).chain(devices).collect()
}

impl DeviceRecord {
    /// Whether it is let in at `now`.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && !self.has_ended(now)
    }

    /// Whether its certificate's time is over.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        let newest = self.pending.as_ref().unwrap_or(&self.current);
        // Of one that was pinned before ends were kept, the handshake alone knows it.
        newest.not_after != DeviceRecord::END_NOT_KEPT && newest.not_after < now
    }
}

/// Notes that a caller uses its certificate: the first call under a renewed one ends the one before it.
pub async fn used(desk: &Arc<Desk>, name: &OperatorName, peer: &Peer) {
    let is_new = {
        let views = desk.views.read();
        let record = views.roster.operator(name.as_str());
        let device = record.and_then(|(record, _)| device_of(record, &peer.fingerprint));
        device.is_some_and(|device| device.current.fingerprint != peer.fingerprint)
    };
    if !is_new {
        return;
    }
    let audit = Actor {
        who: format!("operator/{name}"),
        from: peer.address.to_string(),
    }
    .does(
        "operator.promote",
        name,
        "the first call under a renewed certificate",
    );
    let promoted = desk
        .change_operator(name.as_str(), audit, |record| {
            Ok(promote(record, &peer.fingerprint))
        })
        .await;
    if let Err(error) = promoted {
        tracing::warn!(operator = %name, %error, "could not end the certificate before a renewed one; the next call tries again");
    }
}

impl Desk {
    /// Changes an operator's record, as [`Desk::change_host`] does a host's.
    ///
    /// # Errors
    /// When there is none of that name, what `change` refuses, and what the store refuses.
    pub async fn change_operator(
        &self,
        name: &str,
        audit: Audit,
        mut change: impl FnMut(&mut OperatorRecord) -> Result<bool, Refused> + Send,
    ) -> Result<(OperatorRecord, bool), Refused> {
        let at = key::operator(name);
        for _ in 0..MOST_TRIES {
            let entry = self.store.get(&at)?.ok_or_else(|| Refused::no_operator(name))?;
            let mut record = OperatorRecord::of(&entry)?;
            if !change(&mut record)? {
                return Ok((record, false));
            }
            let guard = Guard::At(at.clone(), entry.revision);
            match self.commit(vec![guard], vec![record.put()], audit.clone()).await {
                Ok(_) => return Ok((record, true)),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::NotNow(format!(
            "operator {name} is being changed by many at once; try again"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn print(n: u8) -> Fingerprint {
        Fingerprint::of(&[n])
    }

    fn pin(n: u8, issued: Timestamp) -> Pin {
        Pin {
            fingerprint: print(n),
            key: print(100 + n),
            not_after: issued + lifetime::OPERATOR,
            certificate: format!("{n:02x}"),
            from: String::new(),
        }
    }

    fn laptop(n: u8) -> DeviceRecord {
        device(&"laptop".parse().unwrap(), pin(n, NOW), NOW)
    }

    fn ana() -> OperatorRecord {
        new("ana", OperatorRole::Viewer, laptop(1), "admin", NOW)
    }

    fn standing(record: &OperatorRecord, n: u8) -> Standing {
        let all = standings(record);
        let found = all.iter().find(|(fingerprint, _)| *fingerprint == print(n));
        found.map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    fn revocation() -> Revocation {
        Revocation {
            at: NOW,
            by: "ben".into(),
            reason: "left".into(),
        }
    }

    fn later(days: i64) -> Timestamp {
        NOW + SignedDuration::from_hours(24 * days)
    }

    #[test]
    fn a_lost_reply_is_harmless_because_the_same_key_gets_the_same_certificate() {
        let mut ana = ana();
        assert_eq!(renew(&ana, &print(1), &print(102), later(16)), Renewal::Issue);
        offer(&mut ana, &print(1), pin(2, later(16)));
        let again = Renewal::Again(pin(2, later(16)));
        assert_eq!(renew(&ana, &print(1), &print(102), later(16)), again);
        assert!(promote(&mut ana, &print(2)));
        assert_eq!(renew(&ana, &print(2), &print(102), later(16)), again);
    }

    #[test]
    fn the_first_call_under_the_new_certificate_ends_the_old_one_and_no_other_does() {
        let mut ana = ana();
        offer(&mut ana, &print(1), pin(2, later(16)));
        assert!(!promote(&mut ana, &print(1)));
        let good = Standing::Pinned(PinKind::Operator);
        assert_eq!((standing(&ana, 1), standing(&ana, 2)), (good, good));
        assert!(promote(&mut ana, &print(2)));
        assert_eq!((standing(&ana, 1), standing(&ana, 2)), (Standing::Spent, good));
        assert_eq!(ana.devices[0].issued_at, Some(later(16)));
    }

    #[test]
    fn key_after_key_is_told_to_wait_and_the_bundles_own_key_is_refused() {
        let mut ana = ana();
        offer(&mut ana, &print(1), pin(2, later(16)));
        let asks = |seconds| {
            let now = later(16) + SignedDuration::from_secs(seconds);
            renew(&ana, &print(1), &print(103), now)
        };
        assert_eq!((asks(59), asks(60)), (Renewal::TooSoon, Renewal::Issue));
        ana.devices[0].current.certificate = String::new();
        assert_eq!(renew(&ana, &print(1), &print(101), later(16)), Renewal::BundleKey);
    }

    #[test]
    fn a_revoked_operator_has_no_certificate_that_opens_anything_not_even_after_it_is_added_again() {
        let mut ana = ana();
        offer(&mut ana, &print(1), pin(2, NOW));
        promote(&mut ana, &print(2));
        ana.revoked = Some(revocation());
        assert_eq!(
            (standing(&ana, 1), standing(&ana, 2)),
            (Standing::Banned, Standing::Banned)
        );
        assert_eq!(renew(&ana, &print(2), &print(103), NOW), Renewal::NotPinned);
        start_over(&mut ana);
        add_device(&mut ana, laptop(3), NOW).unwrap();
        assert_eq!(
            (standing(&ana, 1), standing(&ana, 2)),
            (Standing::Banned, Standing::Banned)
        );
        assert_eq!(standing(&ana, 3), Standing::Pinned(PinKind::Operator));
    }

    #[test]
    fn a_device_has_one_certificate_until_that_ends_or_is_revoked() {
        let mut ana = ana();
        assert!(matches!(
            add_device(&mut ana, laptop(2), NOW),
            Err(Refused::Exists(_))
        ));
        let phone = device(&"phone".parse().unwrap(), pin(3, NOW), NOW);
        add_device(&mut ana, phone, NOW).unwrap();
        assert!(revoke_device(&mut ana, &"laptop".parse().unwrap(), &revocation()).unwrap());
        assert!(!revoke_device(&mut ana, &"laptop".parse().unwrap(), &revocation()).unwrap());
        assert_eq!(
            (standing(&ana, 1), standing(&ana, 3)),
            (Standing::Banned, Standing::Pinned(PinKind::Operator))
        );
        add_device(&mut ana, laptop(2), NOW).unwrap();
        assert_eq!(standing(&ana, 1), Standing::Banned, "a new one revives nothing");
        add_device(&mut ana, laptop(4), later(31)).unwrap();
        assert_eq!((standing(&ana, 2), ana.devices.len()), (Standing::Spent, 2));
    }

    #[test]
    fn the_masters_own_machine_makes_an_admin_of_anybody_and_room_for_it() {
        let mut ana = ana();
        for n in 2..=16 {
            let name = format!("device-{n}").parse().unwrap();
            add_device(&mut ana, device(&name, pin(n, later(1)), later(1)), NOW).unwrap();
        }
        let local: Name = "local".parse().unwrap();
        let one_more = device(&local, pin(50, later(2)), later(2));
        assert!(matches!(
            add_device(&mut ana, one_more.clone(), later(2)),
            Err(Refused::NotNow(_))
        ));
        ana.revoked = Some(revocation());
        let revoked = let_in(Some(ana.clone()), "ana", one_more.clone(), later(2));
        assert_eq!(
            (revoked.devices.len(), revoked.role, &revoked.revoked),
            (1, OperatorRole::Admin, &None)
        );
        ana.revoked = None;
        let full = let_in(Some(ana), "ana", one_more, later(2));
        assert_eq!(full.devices.len(), MOST_DEVICES);
        assert_eq!(standing(&full, 1), Standing::Spent, "the oldest gave way");
        assert_eq!(standing(&full, 50), Standing::Pinned(PinKind::Operator));
    }
}
