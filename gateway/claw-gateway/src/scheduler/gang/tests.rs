//! Topology, against every possible choice on small fleets.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{NodeId, TokenId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::{GpuRequest, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::{NodeLink, Schedulable};
use proptest::prelude::*;

use super::{Candidate, Spread, place, spread};
use crate::registry::{NodeEntry, NodeUsage};
use crate::scheduler::Score;
use crate::scheduler::view::View;

pub(super) fn view(n: u32, zone: u8, rack: u8) -> View {
    let labels = BTreeMap::from([("zone".to_owned(), format!("z{zone}")), ("rack".to_owned(), format!("r{rack}"))]);
    let node_id = NodeId::from_bits(u128::from(n) + 1);
    let node = NodeEntry {
        node_id,
        name: format!("n{n}"),
        link: NodeLink::Online,
        link_since: Timestamp::default(),
        last_heard: Timestamp::default(),
        schedulable: Schedulable::Active,
        labels,
        capabilities: None,
        store_id: String::new(),
        settings: NodeSettings::default(),
        generation_n: 0,
        enrolled_with: TokenId::from_bits(1),
        revoked_at: None,
        is_readmitted: false,
        orphans: BTreeMap::new(),
        revision: 0,
        usage: NodeUsage::default(),
    };
    let stands = [format!("z{zone}").into(), format!("r{rack}").into()];
    View { node: Arc::new(node), gpus: Vec::new(), n_whole: 0, kinds: Vec::new(), n_islands: 0, stands, standing: None }
}

pub(super) fn candidate(view: &View) -> Candidate<'_> {
    let score = Score {
        simulated: false,
        unreserved: true,
        fallback: 0,
        broken_island: false,
        split_numa: false,
        lost: 0,
        opened: false,
        milli_left: 0,
        island_left: 0,
        gpus_left: 0,
        gpu_memory_over_mib: 0,
        host_left_permille: 0,
        node_id: view.node_id(),
    };
    Candidate { view, chosen: Arc::new([]), runtime: RuntimeKind::Docker, score }
}

fn gang(n_nodes: u32) -> ValidSpec {
    let spec = WorkloadSpec {
        image: Some("acme/train:1".into()),
        nodes: Some(n_nodes),
        gpu: Some(GpuRequest { count: Some(n_nodes), ..GpuRequest::default() }),
        ..WorkloadSpec::default()
    };
    ValidSpec::parse(spec).unwrap()
}

/// The nearest that any choice of so many can be.
fn optimum(candidates: &[Candidate<'_>], n_nodes: usize) -> Spread {
    let subsets = 0_u32..1 << candidates.len();
    let of_size = subsets.filter(|set| set.count_ones() as usize == n_nodes);
    let parts = |set: u32| -> Vec<&Candidate<'_>> {
        candidates.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, c)| c).collect()
    };
    of_size.map(|set| spread(&parts(set))).min().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, .. ProptestConfig::default() })]

    /// Zones, then racks: as few as any choice could do with.
    #[test]
    fn no_choice_is_nearer(places in prop::collection::vec((0_u8..3, 0_u8..4), 2..13), n in 2_u32..7) {
        let views: Vec<View> = (0..).zip(&places).map(|(at, (zone, rack))| view(at, *zone, *rack)).collect();
        let candidates: Vec<Candidate<'_>> = views.iter().map(candidate).collect();
        prop_assume!(n as usize <= candidates.len());
        let (places, _) = place(candidates.len(), &candidates, Vec::new, &gang(n), |_, _| true).expect("there are enough");
        let taken: Vec<&Candidate<'_>> = places
            .iter()
            .map(|place| candidates.iter().find(|c| c.node().node_id == place.node_id).unwrap())
            .collect();
        prop_assert_eq!(taken.len(), n as usize);
        prop_assert_eq!(spread(&taken), optimum(&candidates, n as usize));
    }
}
