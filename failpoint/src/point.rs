//! The complete list of points. What a test enumerates is this.

/// Who passes a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `picket-agent`.
    Agent,
    /// `picket-master`.
    Master,
}

macro_rules! points {
    ($($(#[$about:meta])* $point:ident = $side:ident, $name:literal;)*) => {
        /// A place in the code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$about])* $point,)*
        }

        impl Point {
            /// Every point there is.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// What it is called where a process is told to end there.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }

            /// Who passes it.
            #[must_use]
            pub const fn side(self) -> Side {
                match self {
                    $(Self::$point => Side::$side,)*
                }
            }
        }
    };
}

points! {
    /// Before the agent stores the key that it will ask a certificate for.
    AgentBeforeKey = Agent, "agent-before-key";
    /// The key is on the disk.
    AgentAfterKey = Agent, "agent-after-key";
    /// Before the request for a certificate goes out.
    AgentBeforeRequest = Agent, "agent-before-request";
    /// Wherever the renewal of an open session, or of an enrolment, waits.
    AgentRenewalWaits = Agent, "agent-renewal-waits";
    /// The certificate has come.
    AgentAfterReply = Agent, "agent-after-reply";
    /// Before the certificate is stored.
    AgentBeforeCertificate = Agent, "agent-before-certificate";
    /// The certificate is on the disk.
    AgentAfterCertificate = Agent, "agent-after-certificate";
    /// Before the session under the old certificate is left.
    AgentBeforeGoodbye = Agent, "agent-before-goodbye";
    /// The session under the old certificate is left.
    AgentAfterGoodbye = Agent, "agent-after-goodbye";
    /// Before a connection is made.
    AgentBeforeConnect = Agent, "agent-before-connect";
    /// A connection is made.
    AgentAfterConnect = Agent, "agent-after-connect";
    /// Before the first call of a connection.
    AgentBeforeHello = Agent, "agent-before-hello";
    /// The first call is answered.
    AgentAfterWelcome = Agent, "agent-after-welcome";
    /// Before the files of the new identity become those in use.
    AgentBeforePromotion = Agent, "agent-before-promotion";
    /// The identity in use is kept as the previous one.
    AgentAfterPrevious = Agent, "agent-after-previous";
    /// The new identity is the one in use.
    AgentAfterCurrent = Agent, "agent-after-current";
    /// The files are as they will be.
    AgentAfterPromotion = Agent, "agent-after-promotion";
    /// Before it is noted that the bundle is used up.
    AgentBeforeSpent = Agent, "agent-before-spent";
    /// It is noted that the bundle is used up.
    AgentAfterSpent = Agent, "agent-after-spent";
    /// A request for a certificate has come to the master.
    MasterBeforeRenewal = Master, "master-before-renewal";
    /// A certificate is signed, and nobody has it.
    MasterAfterSigning = Master, "master-after-signing";
    /// Wherever the master's part of a renewal waits.
    MasterRenewalWaits = Master, "master-renewal-waits";
    /// Before a commit is appended to the journal.
    StoreBeforeAppend = Master, "store-before-append";
    /// It is appended, and not flushed.
    StoreAfterAppend = Master, "store-after-append";
    /// It is flushed.
    StoreAfterFlush = Master, "store-after-flush";
    /// The place of the journal's head is written.
    StoreAfterHead = Master, "store-after-head";
    /// The index has it.
    StoreAfterIndex = Master, "store-after-index";
    /// Those who watch are told.
    StoreAfterWatch = Master, "store-after-watch";
    /// The one who asked for it is told.
    StoreAfterAnswer = Master, "store-after-answer";
    /// A renewal is committed.
    MasterAfterRenewal = Master, "master-after-renewal";
    /// Before the certificate goes out.
    MasterBeforeReply = Master, "master-before-reply";
    /// The first call under a new certificate has come.
    MasterBeforePromotion = Master, "master-before-promotion";
    /// Wherever the promotion of a pin waits.
    MasterPromotionWaits = Master, "master-promotion-waits";
    /// The promotion is committed, and the call not answered.
    MasterAfterPromotion = Master, "master-after-promotion";
}

impl Point {
    /// The point of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for point in Point::ALL {
            assert_eq!(Point::named(point.name()), Some(*point));
        }
        assert_eq!(Point::named("nowhere"), None);
    }
}
