//! What is wrong with the local service, each thing in words of its own, with what to do.

use std::{io, path::Path};

use picket_proto::{document::Problem, status::ServiceState};
use picket_zerotier::{
    home::{self, Home, HomeError},
    service::Error,
};

use super::ZeroTierError;
use crate::sentence;

/// The longest `local.conf` that is read.
const LONGEST: u64 = 1 << 20;

/// What a beat says of a service that cannot be asked.
pub(super) fn state(error: &ZeroTierError) -> ServiceState {
    let said = sentence(error);
    let told = |what: &str| format!("{what}: {said}");
    match error {
        ZeroTierError::Home(HomeError::NoDirectory { .. }) => ServiceState::Unreachable(told(
            "ZeroTier is not installed here, or zerotier.home in agent.toml names another folder",
        )),
        ZeroTierError::Home(HomeError::Missing { .. }) => ServiceState::Unreachable(told(
            "zerotier-one has not run here; start it with `systemctl enable --now zerotier-one`",
        )),
        ZeroTierError::Service(Error::Unreachable { .. }) => ServiceState::Unreachable(told(
            "zerotier-one does not run; start it with `systemctl start zerotier-one`, and see its log when it does not stay",
        )),
        ZeroTierError::Service(Error::TimedOut { .. }) => ServiceState::Unreachable(told(
            "zerotier-one runs and does not answer; restart it when that lasts",
        )),
        ZeroTierError::Service(Error::Refused { .. }) => ServiceState::Refuses(told(
            "zerotier-one does not take the token; restart it when authtoken.secret was changed while it ran",
        )),
        ZeroTierError::Home(HomeError::Unreadable { .. }) => {
            ServiceState::Refuses(told("the agent may not read what opens zerotier-one"))
        }
        ZeroTierError::Service(Error::NoTun { .. }) => ServiceState::Broken(no_tun(&said)),
        ZeroTierError::Home(HomeError::Nonsense { .. } | HomeError::Identity { .. })
        | ZeroTierError::Service(
            Error::Broken { .. }
            | Error::Failed { .. }
            | Error::NotFound { .. }
            | Error::Disagrees { .. }
            | Error::Foreign { .. }
            | Error::TooMany { .. }
            | Error::Unsupported { .. },
        ) => ServiceState::Broken(said),
    }
}

/// What is told when the service can open no TUN device.
pub(crate) fn no_tun(said: &str) -> String {
    format!(
        "zerotier-one has no TUN device and can be on no network; run `modprobe tun`, in a container give it /dev/net/tun and \
         CAP_NET_ADMIN, and restart it: {said}"
    )
}

/// What is wrong with the settings of a service that is a controller.
pub(super) fn of_controller(home: &Home) -> Option<Problem> {
    let path = home.directory().join("local.conf");
    let text = match picket_durable::read_bounded(&path, LONGEST) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(picket_durable::FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            "{}".to_owned()
        }
        // Whoever may not read it says nothing about it.
        Err(_) => return None,
    };
    let told = |what: String| Problem::new("zerotier", what);
    has_secondary_port(&text, &path).map_or_else(|what| Some(told(what)), |()| None)
}

/// Whether a `local.conf` chooses the second port. A service that does not binds another one at each start, and members
/// that talked to the old one go on sending there for four minutes.
fn has_secondary_port(local_conf: &str, path: &Path) -> Result<(), String> {
    let path = path.display();
    let chosen = home::secondary_port(local_conf).map_err(|error| {
        format!("{path} is no JSON ({error}), and zerotier-one goes by none of it; mend it and restart zerotier-one")
    })?;
    if chosen.is_some() {
        return Ok(());
    }
    Err(format!(
        "this host is a controller, and {path} does not choose settings.secondaryPort: after each restart members may lose it \
         for up to four minutes; write {{\"settings\": {{\"secondaryPort\": 9994}}}} there, with what it has, and restart zerotier-one"
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use picket_zerotier::service::Place;

    use super::*;

    fn place() -> Place {
        Place::Service("127.0.0.1:9993".into())
    }

    fn request() -> String {
        "GET /status".into()
    }

    #[test]
    fn a_service_that_is_missing_stopped_silent_or_closed_to_us_is_told_apart_with_what_to_do() {
        let unreachable = Error::Unreachable {
            request: request(),
            place: place(),
            cause: io::ErrorKind::ConnectionRefused.into(),
        };
        let silent = Error::TimedOut {
            request: request(),
            place: place(),
            deadline: Duration::from_secs(10),
        };
        let refused = Error::Refused {
            request: request(),
            place: place(),
        };
        let no_tun = Error::NoTun {
            network: "5350d87547c880cb".parse().unwrap(),
            place: place(),
        };
        let path = "/var/lib/zerotier-one";
        let cases: [(ZeroTierError, &str); 6] = [
            (
                HomeError::NoDirectory { path: path.into() }.into(),
                "zerotier.home in agent.toml",
            ),
            (
                HomeError::Missing { path: path.into() }.into(),
                "systemctl enable --now zerotier-one",
            ),
            (unreachable.into(), "systemctl start zerotier-one"),
            (silent.into(), "does not answer; restart it"),
            (refused.into(), "does not take the token"),
            (no_tun.into(), "modprobe tun"),
        ];
        let mut told = std::collections::BTreeSet::new();
        for (error, wanted) in cases {
            let state = state(&error);
            let problem = state.problem().unwrap();
            assert!(problem.contains(wanted), "{wanted:?} not in {problem}");
            told.insert(problem.split(':').next().unwrap().to_owned());
        }
        assert_eq!(told.len(), 6, "each says something else: {told:?}");
    }

    #[test]
    fn a_home_that_is_not_there_and_one_in_which_nothing_ran_are_different_things() {
        let root = tempfile::tempdir().unwrap();
        let state_of = |home: Home| state(&home.service().unwrap_err().into());
        let missing = state_of(Home::new(root.path().join("nowhere")));
        let stopped = state_of(Home::new(root.path()));
        assert!(
            missing.problem().unwrap().contains("not installed"),
            "{missing:?}"
        );
        assert!(
            stopped.problem().unwrap().contains("has not run here"),
            "{stopped:?}"
        );
    }

    #[test]
    fn a_controller_without_a_second_port_of_its_choice_is_told_what_to_write() {
        let root = tempfile::tempdir().unwrap();
        let (home, file) = (Home::new(root.path()), root.path().join("local.conf"));
        let problem = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            of_controller(&home).map(|problem| problem.message)
        };
        assert!(problem(None).unwrap().contains("secondaryPort"));
        assert!(
            problem(Some("{\"settings\": {}}"))
                .unwrap()
                .contains("\"secondaryPort\": 9994")
        );
        assert!(problem(Some("{\"settings\": {\"secondaryPort\": 0}}")).is_some());
        assert!(problem(Some("{\"settings\": ")).unwrap().contains("is no JSON"));
        assert_eq!(problem(Some("{\"settings\": {\"secondaryPort\": 9994}}")), None);
    }
}
