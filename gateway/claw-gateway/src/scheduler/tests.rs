//! The shape rule, checked against the decision itself.

use claw_proto::spec::{GpuRequest, Placement, RuntimeKind, WorkloadSpec};
use claw_proto::validation::ValidSpec;

use super::same_shape;

fn valid(change: impl FnOnce(&mut WorkloadSpec)) -> ValidSpec {
    let mut spec = WorkloadSpec {
        command: Some(vec!["true".into()]),
        gpu: Some(GpuRequest { count: Some(2), ..GpuRequest::default() }),
        ..WorkloadSpec::default()
    };
    change(&mut spec);
    ValidSpec::parse(spec).unwrap()
}

#[test]
fn shapes_differ_by_whatever_a_decision_looks_at() {
    let base = valid(|_| {});
    assert!(same_shape(&base, &valid(|s| s.name = Some("other".into()))));
    assert!(!same_shape(&base, &valid(|s| s.cpu_cores = Some(9.0))));
    assert!(!same_shape(
        &base,
        &valid(|s| s.placement = Some(Placement { zone: Some("a".into()), ..Placement::default() }))
    ));
    assert!(!same_shape(&base, &valid(|s| s.runtime = Some(RuntimeKind::Sim))));
    assert!(!same_shape(&base, &valid(|s| s.image = Some("acme/x:1".into()))));
}
