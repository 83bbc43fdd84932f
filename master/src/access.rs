//! Who may call what: one line for each RPC on both doors. What is not in the table is not served.

use std::fmt;

use crate::record::OperatorRole;

/// Who may make a call: some of the operators' roles, hosts, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callers(u8);

/// Hosts, beside the roles of operators.
const HOST_BIT: u8 = 1 << 4;

impl Callers {
    /// Hosts, and no operator.
    pub const HOSTS: Self = Self(HOST_BIT);
    /// Every operator, whatever its role.
    pub const OPERATORS: Self = Self(0b1111);
    /// Those who may look at everything.
    pub const READERS: Self = Self(0b1110);
    /// Those who do the work of a day.
    pub const WORKERS: Self = Self(0b1100);
    /// Admins.
    pub const ADMINS: Self = Self(0b1000);
    /// Whoever was let in.
    pub const ALL: Self = Self(0b1111 | HOST_BIT);

    /// Whether an operator of this role is one of them.
    #[must_use]
    pub const fn include(self, role: OperatorRole) -> bool {
        self.0 & Self::bit(role) != 0
    }

    /// Whether hosts are.
    #[must_use]
    pub const fn include_hosts(self) -> bool {
        self.0 & HOST_BIT != 0
    }

    const fn bit(role: OperatorRole) -> u8 {
        match role {
            OperatorRole::Requester => 1,
            OperatorRole::Viewer => 1 << 1,
            OperatorRole::Operator => 1 << 2,
            OperatorRole::Admin => 1 << 3,
        }
    }
}

/// `operator, admin`, for sentences.
impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = OperatorRole::ALL.into_iter().filter(|role| self.include(*role));
        let hosts = self.include_hosts().then_some("host");
        for (number, who) in roles.map(OperatorRole::word).chain(hosts).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{who}")?;
        }
        Ok(())
    }
}

/// Whether a call changes what the master keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It looks.
    Reads,
    /// It is a change: audited when it is made, and when it is refused.
    Changes,
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    /// The path of the RPC, `/picket.admin.v1.HostService/ListHosts`.
    pub path: &'static str,
    /// Who may call it.
    pub callers: Callers,
    /// What it does.
    pub effect: Effect,
}

const fn reads(callers: Callers, path: &'static str) -> Access {
    Access {
        path,
        callers,
        effect: Effect::Reads,
    }
}

const fn changes(callers: Callers, path: &'static str) -> Access {
    Access {
        path,
        callers,
        effect: Effect::Changes,
    }
}

/// The table, by service. A story calls every method that reflection shows as everybody there is, and compares; the table
/// in `docs/operation.md` is compared with this one too.
pub const ACCESS: &[Access] = &[
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/EnrollHost"),
    reads(Callers::READERS, "/picket.admin.v1.HostService/ListHosts"),
    reads(Callers::READERS, "/picket.admin.v1.HostService/GetHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/LabelHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/NoteHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/BanHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/UnbanHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/BundleHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/RetireHost"),
    changes(Callers::WORKERS, "/picket.admin.v1.HostService/AcceptHostNode"),
    reads(Callers::READERS, "/picket.admin.v1.AuditService/ListAudit"),
    reads(Callers::READERS, "/picket.admin.v1.AuditService/VerifyAudit"),
    reads(Callers::READERS, "/picket.admin.v1.AuditService/ExportAudit"),
    reads(Callers::OPERATORS, "/picket.admin.v1.CaService/GetCa"),
    changes(Callers::ADMINS, "/picket.admin.v1.CaService/PrepareCa"),
    changes(Callers::ADMINS, "/picket.admin.v1.CaService/ActivateCa"),
    changes(Callers::ADMINS, "/picket.admin.v1.CaService/RetireCa"),
    reads(Callers::READERS, "/picket.admin.v1.ClockService/GetClock"),
    changes(Callers::WORKERS, "/picket.admin.v1.ClockService/AcceptClock"),
    changes(Callers::WORKERS, "/picket.admin.v1.NetworkService/CreateNetwork"),
    changes(Callers::WORKERS, "/picket.admin.v1.NetworkService/AdoptNetwork"),
    changes(Callers::WORKERS, "/picket.admin.v1.NetworkService/EnforceNetwork"),
    reads(Callers::READERS, "/picket.admin.v1.NetworkService/PlanNetwork"),
    changes(Callers::WORKERS, "/picket.admin.v1.NetworkService/ApplyNetwork"),
    reads(Callers::OPERATORS, "/picket.admin.v1.NetworkService/ListNetworks"),
    reads(Callers::READERS, "/picket.admin.v1.NetworkService/GetNetwork"),
    changes(
        Callers::WORKERS,
        "/picket.admin.v1.NetworkService/ReconcileNetwork",
    ),
    changes(Callers::WORKERS, "/picket.admin.v1.NetworkService/ResumeNetwork"),
    changes(Callers::ADMINS, "/picket.admin.v1.NetworkService/DeleteNetwork"),
    reads(Callers::OPERATORS, "/picket.admin.v1.MemberService/ListMembers"),
    reads(Callers::OPERATORS, "/picket.admin.v1.MemberService/GetMember"),
    changes(Callers::WORKERS, "/picket.admin.v1.MemberService/AdmitMember"),
    changes(Callers::OPERATORS, "/picket.admin.v1.MemberService/RequestMember"),
    changes(Callers::READERS, "/picket.admin.v1.MemberService/ApproveMember"),
    changes(Callers::READERS, "/picket.admin.v1.MemberService/DenyMember"),
    changes(Callers::OPERATORS, "/picket.admin.v1.MemberService/CancelMember"),
    changes(Callers::WORKERS, "/picket.admin.v1.MemberService/RevokeMember"),
    changes(
        Callers::OPERATORS,
        "/picket.admin.v1.MemberService/ActivateMember",
    ),
    changes(Callers::READERS, "/picket.admin.v1.MemberService/ExtendMember"),
    changes(Callers::OPERATORS, "/picket.admin.v1.MemberService/EndMember"),
    changes(
        Callers::OPERATORS,
        "/picket.admin.v1.DeviceService/RegisterDevice",
    ),
    reads(Callers::OPERATORS, "/picket.admin.v1.DeviceService/ListDevices"),
    changes(Callers::OPERATORS, "/picket.admin.v1.DeviceService/RemoveDevice"),
    changes(Callers::WORKERS, "/picket.admin.v1.KillService/Kill"),
    reads(Callers::READERS, "/picket.admin.v1.KillService/WatchKill"),
    reads(Callers::READERS, "/picket.admin.v1.KillService/ListKills"),
    changes(Callers::WORKERS, "/picket.admin.v1.KillService/Unkill"),
    changes(Callers::WORKERS, "/picket.admin.v1.MoonService/CreateMoon"),
    reads(Callers::READERS, "/picket.admin.v1.MoonService/ListMoons"),
    changes(Callers::WORKERS, "/picket.admin.v1.MoonService/RemoveMoon"),
    reads(
        Callers::READERS,
        "/picket.admin.v1.DeploymentService/PlanDeployment",
    ),
    changes(
        Callers::WORKERS,
        "/picket.admin.v1.DeploymentService/ApplyDeployment",
    ),
    reads(
        Callers::READERS,
        "/picket.admin.v1.DeploymentService/ListDeployments",
    ),
    reads(
        Callers::READERS,
        "/picket.admin.v1.DeploymentService/GetDeployment",
    ),
    changes(
        Callers::WORKERS,
        "/picket.admin.v1.DeploymentService/RemoveDeployment",
    ),
    reads(Callers::READERS, "/picket.admin.v1.DeckyService/ListDeckies"),
    reads(Callers::READERS, "/picket.admin.v1.DeckyService/GetDecky"),
    reads(Callers::READERS, "/picket.admin.v1.EventService/ListEvents"),
    reads(Callers::READERS, "/picket.admin.v1.EventService/WatchEvents"),
    changes(Callers::ADMINS, "/picket.admin.v1.OperatorService/AddOperator"),
    reads(Callers::READERS, "/picket.admin.v1.OperatorService/ListOperators"),
    reads(Callers::READERS, "/picket.admin.v1.OperatorService/GetOperator"),
    reads(Callers::OPERATORS, "/picket.admin.v1.OperatorService/GetSelf"),
    changes(Callers::ADMINS, "/picket.admin.v1.OperatorService/ChangeOperator"),
    changes(Callers::ADMINS, "/picket.admin.v1.OperatorService/RevokeOperator"),
    changes(
        Callers::OPERATORS,
        "/picket.admin.v1.OperatorService/RenewOperator",
    ),
    changes(Callers::HOSTS, "/picket.agent.v1.AgentService/Session"),
    changes(Callers::HOSTS, "/picket.agent.v1.AgentService/Renew"),
    changes(Callers::HOSTS, "/picket.agent.v1.AgentService/Report"),
    reads(Callers::HOSTS, "/picket.agent.v1.AgentService/Fetch"),
    reads(Callers::ALL, "/grpc.health.v1.Health/Check"),
    reads(Callers::ALL, "/grpc.health.v1.Health/Watch"),
    reads(
        Callers::OPERATORS,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ),
    reads(
        Callers::OPERATORS,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ),
];

/// The line of the RPC at `path`; none when there is no such RPC.
#[must_use]
pub fn access(path: &str) -> Option<&'static Access> {
    ACCESS.iter().find(|line| line.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_rpc_has_two_lines() {
        let paths: BTreeSet<&str> = ACCESS.iter().map(|line| line.path).collect();
        assert_eq!(paths.len(), ACCESS.len());
    }

    #[test]
    fn an_admin_may_what_anybody_may() {
        for line in ACCESS {
            let others = OperatorRole::ALL
                .into_iter()
                .any(|role| line.callers.include(role));
            assert_eq!(line.callers.include(OperatorRole::Admin), others, "{}", line.path);
        }
    }

    #[test]
    fn a_viewer_changes_only_what_is_its_own_or_what_a_network_asks_it_to_decide() {
        let may: Vec<_> = ACCESS
            .iter()
            .filter(|line| line.effect == Effect::Changes && line.callers.include(OperatorRole::Viewer))
            .filter_map(|line| line.path.rsplit('/').next())
            .collect();
        assert_eq!(
            may,
            [
                "RequestMember",
                "ApproveMember",
                "DenyMember",
                "CancelMember",
                "ActivateMember",
                "ExtendMember",
                "EndMember",
                "RegisterDevice",
                "RemoveDevice",
                "RenewOperator",
            ]
        );
    }

    #[test]
    fn what_is_not_in_the_table_is_nobodys() {
        for path in [
            "",
            "/",
            "/picket.admin.v1.HostService/",
            "/picket.admin.v1.HostService/listhosts",
        ] {
            assert_eq!(access(path), None, "{path}");
        }
    }

    #[test]
    fn callers_are_named_by_their_roles() {
        assert_eq!(Callers::WORKERS.to_string(), "operator, admin");
        assert_eq!(
            Callers::ALL.to_string(),
            "requester, viewer, operator, admin, host"
        );
    }
}
