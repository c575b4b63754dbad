//! Ports at which the processes of one attempt meet on their node.
//!
//! Attempts of one node share its loopback: with the same port the second would
//! speak with the first one's processes, or not begin. Each gets its own, from its
//! key, so that it gets the same again; what it was told stands in its folder, and
//! the next agent reads it there.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::Key;
use super::folder::{Folder, SpecFile};
use super::ranks::MASTER_PORT;
use crate::files::read_json;

/// First port for host processes: above those that the gateway names for work over
/// several nodes, and with the others below those that systems hand out by themselves.
const PROCESSES_FIRST: u16 = 30_000;
/// So many are for host processes, and so many for containers.
const PORTS: u16 = 1_300;

/// The ports of the attempts of one runtime.
#[derive(Debug)]
pub(super) struct MeetingPorts {
    first: u16,
    given: Mutex<BTreeMap<Key, u16>>,
}

impl MeetingPorts {
    /// Those of host processes.
    pub(super) fn of_processes() -> Self {
        Self { first: PROCESSES_FIRST, given: Mutex::default() }
    }

    /// Those of containers that have the host's network.
    pub(super) fn of_containers() -> Self {
        Self { first: PROCESSES_FIRST + PORTS, given: Mutex::default() }
    }

    /// The attempt's port: nobody listens on it now, and no other attempt has it. None if that is
    /// true of no port.
    pub(super) fn give(&self, key: Key) -> Option<u16> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = given.get(&key) {
            return Some(*port);
        }
        let place = crc32fast::hash(format!("{}.{}", key.0, key.1.0).as_bytes()) % u32::from(PORTS);
        let place = u16::try_from(place).unwrap_or(0);
        let mut turns = (0..PORTS).map(|n| self.first + (place + n) % PORTS);
        let port = turns.find(|port| !given.values().any(|other| other == port) && is_free(*port))?;
        given.insert(key, port);
        Some(port)
    }

    /// What an earlier agent gave to an attempt that lives.
    pub(super) fn recover(&self, key: Key, folder: &Folder) {
        let spec = match read_json::<SpecFile>(&folder.spec()) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::debug!(%error, "the port of an attempt could not be read");
                None
            }
        };
        if let Some(port) = spec.and_then(|spec| told(&spec)) {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(key, port);
        }
    }

    /// The attempt is gone.
    pub(super) fn take_back(&self, key: Key) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// The port that an attempt was told.
fn told(spec: &SpecFile) -> Option<u16> {
    let of_process = spec.env.get(MASTER_PORT).map(String::as_str);
    let created = spec.container.as_ref().and_then(|container| container.create.as_ref());
    let mut of_container = created.and_then(|create| create.env.as_ref()).into_iter().flatten();
    let named = of_container.find_map(|line| line.strip_prefix(MASTER_PORT)?.strip_prefix('='));
    of_process.or(named)?.parse().ok()
}

/// Whether nobody listens on it, on loopback or on any other address: a program may take all.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerCreateBody;
    use claw_proto::ids::{Attempt, WorkloadId};
    use claw_proto::spec::{RuntimeKind, WorkloadSpec};

    use super::*;
    use crate::files::{Durability, replace_json};
    use crate::runtime::docker::gpu::ExpectedDevices;
    use crate::runtime::folder::ContainerFile;
    use crate::runtime::samples;

    fn key(n: u128) -> Key {
        (WorkloadId::from_bits(n), Attempt(1))
    }

    fn spec(key: Key, env: BTreeMap<String, String>, container: Option<Box<ContainerFile>>) -> SpecFile {
        let workload = samples::desired(key, RuntimeKind::Process, WorkloadSpec::default());
        SpecFile { env, container, ..samples::spec_file(workload) }
    }

    fn container(env: &str) -> Box<ContainerFile> {
        Box::new(ContainerFile {
            socket: "/nowhere".into(),
            name: "claw-test".into(),
            node_id: "node_test".into(),
            create: Some(ContainerCreateBody { env: Some(vec![env.to_owned()]), ..ContainerCreateBody::default() }),
            secrets: None,
            outputs: "/nowhere".into(),
            outputs_bytes_max: 0,
            devices: ExpectedDevices::default(),
        })
    }

    #[test]
    fn attempts_of_one_node_meet_at_ports_of_their_own() {
        let ports = MeetingPorts::of_containers();
        let mut all: Vec<u16> = (1..=50).filter_map(|n| ports.give(key(n))).collect();
        assert_eq!(ports.give(key(1)), Some(all[0]), "it keeps its own");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 50, "no two have the same");
        let of_containers = PROCESSES_FIRST + PORTS..PROCESSES_FIRST + 2 * PORTS;
        assert!(all.iter().all(|port| of_containers.contains(port)));

        let ports = MeetingPorts::of_containers();
        let wanted = ports.give(key(51)).unwrap();
        ports.take_back(key(51));
        let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).unwrap();
        assert_ne!(ports.give(key(51)).unwrap(), wanted, "a stranger listens there");
        drop(stranger);
        // An agent that starts finds who lives: a host process, or a container.
        let told = format!("{MASTER_PORT}={wanted}");
        let of_process = spec(key(52), BTreeMap::from([(MASTER_PORT.to_owned(), wanted.to_string())]), None);
        let of_container = spec(key(52), BTreeMap::new(), Some(container(&told)));
        for living in [of_process, of_container] {
            let root = tempfile::tempdir().unwrap();
            let folder = Folder::at(root.path());
            replace_json(&folder.spec(), &living, Durability::Cached).unwrap();
            let ports = MeetingPorts::of_containers();
            ports.recover(key(52), &folder);
            assert_eq!(ports.give(key(52)), Some(wanted));
            assert_ne!(ports.give(key(51)).unwrap(), wanted, "another attempt has it");
            ports.take_back(key(51));
            ports.take_back(key(52));
            assert_eq!(ports.give(key(51)), Some(wanted), "it is free again");
        }
    }
}
