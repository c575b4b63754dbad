//! What was lent is taken back: by whom, from whom, how much, and that it does not go back and forth.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::workloads::{WorkloadReason as R, WorkloadState as S};

use super::fleet::Fleet;
use super::tenancy::{of, set};
use crate::event::Event;
use crate::{Operation, query};

/// One node of eight GPUs; `lab` and `web` are guaranteed four each.
fn halves() -> Fleet {
    let mut f = Fleet::with_nodes(1);
    for tenant in ["lab", "web"] {
        f.plan_and_apply(set(tenant, None, Some(4), None, &[])).unwrap();
    }
    f
}

fn borrows(tenant: &str, gpus: u32) -> WorkloadSpec {
    WorkloadSpec { preemptible: Some(true), ..of(tenant, gpus) }
}

fn run(f: &mut Fleet, spec: WorkloadSpec) -> WorkloadId {
    let id = f.submit(spec).workload_id.unwrap();
    f.report_all(id, N::Running, C::Progress, None);
    assert!(f.workload(id).live().is_some());
    id
}

fn states(f: &Fleet, ids: &[WorkloadId]) -> Vec<S> {
    ids.iter().map(|id| f.workload(*id).state).collect()
}

#[test]
fn a_guarantee_takes_back_what_was_lent_and_no_more() {
    let mut f = halves();
    let lent: Vec<_> = (0..4).map(|_| run(&mut f, borrows("web", 2))).collect();
    f.pass(61);
    let mine = f.submit(of("lab", 4)).workload_id.unwrap();
    assert_eq!(f.workload(mine).reason, R::MakingRoom);
    let leave: Vec<WorkloadId> = lent.iter().copied().filter(|id| f.workload(*id).state == S::Stopping).collect();
    assert_eq!(leave.len(), 2, "web keeps what it is guaranteed");
    let told = query::explain(&f.cluster, &mine.to_string(), f.now).unwrap().summary;
    assert!(told.contains("Work beyond what its tenant is guaranteed, or less important, is told to end"), "{told}");
    // The first of the two comes back into the queue, and before it: it gets nothing of what is taken back.
    for id in &leave {
        f.report_all(*id, N::Stopped, C::StopRequested, None);
    }
    assert_eq!(f.workload(mine).state, S::Placed);
    assert_eq!(states(&f, &leave), [S::Pending; 2]);
    // What lab would borrow itself is taken from nobody, and it has all that it is guaranteed.
    f.report_all(mine, N::Running, C::Progress, None);
    let more = f.submit(of("lab", 1)).workload_id.unwrap();
    f.pass(120);
    assert_eq!((f.workload(more).state, f.workload(more).reason), (S::Pending, R::NoRoom));
    assert_eq!(lent.iter().filter(|id| f.workload(**id).state == S::Running).count(), 2);
    // Neither does web take back what is not beyond lab's guarantee.
    f.pass(120);
    assert_eq!(states(&f, &leave), [S::Pending; 2]);
}

#[test]
fn nothing_is_taken_back_from_more_important_work_or_from_who_did_not_agree() {
    let mut f = halves();
    let important = WorkloadSpec { priority: Some(Priority::High), ..borrows("web", 6) };
    let important = run(&mut f, important);
    let firm = run(&mut f, of("web", 2));
    f.pass(61);
    let mine = f.submit(of("lab", 2)).workload_id.unwrap();
    f.pass(61);
    assert_eq!(states(&f, &[important, firm, mine]), [S::Running, S::Running, S::Pending]);
}

#[test]
fn nobodys_work_has_no_guarantee_and_a_part_takes_nothing_from_its_own() {
    let mut f = halves();
    f.plan_and_apply(set("vision", Some("lab"), Some(2), None, &[])).unwrap();
    let nobodys = run(&mut f, WorkloadSpec { tenant: None, ..borrows("lab", 4) });
    let family = run(&mut f, borrows("lab", 4));
    f.pass(61);
    let mine = f.submit(of("vision", 2)).workload_id.unwrap();
    assert_eq!(f.workload(mine).reason, R::MakingRoom);
    assert_eq!(states(&f, &[family, nobodys]), [S::Running, S::Stopping]);
}

#[test]
fn what_a_part_holds_is_kept_for_what_it_is_part_of() {
    let mut f = halves();
    // The part is guaranteed nothing by itself, and what it is part of is guaranteed four.
    f.plan_and_apply(set("vision", Some("lab"), None, None, &[])).unwrap();
    let parts: Vec<_> = (0..2).map(|_| run(&mut f, borrows("vision", 2))).collect();
    let nobodys = run(&mut f, WorkloadSpec { tenant: None, ..borrows("lab", 4) });
    f.pass(61);
    let web = f.submit(of("web", 4)).workload_id.unwrap();
    assert_eq!(states(&f, &[parts[0], parts[1], nobodys]), [S::Running, S::Running, S::Stopping]);
    f.report_all(nobodys, N::Stopped, C::StopRequested, None);
    assert_eq!(f.workload(web).state, S::Placed);
    // And it takes back by that guarantee, too.
    f.report_all(parts[0], N::Completed, C::Exited, Some(0));
    let other = run(&mut f, WorkloadSpec { tenant: None, ..borrows("lab", 2) });
    f.pass(61);
    let again = f.submit(of("vision", 2)).workload_id.unwrap();
    assert_eq!(states(&f, &[other, again]), [S::Stopping, S::Pending]);
}

#[test]
fn who_leaves_already_is_not_counted_as_there() {
    let mut f = halves();
    let lent: Vec<_> = (0..4).map(|_| run(&mut f, borrows("web", 2))).collect();
    f.pass(61);
    let first = f.submit(of("lab", 4)).workload_id.unwrap();
    // It is given up while those that leave for it are still there; another comes.
    f.plan_and_apply(Operation::WorkloadStop { workload: first.to_string(), grace_s: None }).unwrap();
    f.submit(of("lab", 4));
    let running = lent.iter().filter(|id| f.workload(**id).state == S::Running).count();
    assert_eq!(running, 2, "web keeps what it is guaranteed");
}

#[test]
fn less_important_work_that_leaves_counts_too() {
    let mut f = halves();
    let low = run(&mut f, WorkloadSpec { priority: Some(Priority::Low), ..borrows("web", 2) });
    let normal = run(&mut f, borrows("web", 2));
    run(&mut f, of("web", 2));
    run(&mut f, WorkloadSpec { tenant: None, ..of("lab", 2) });
    f.pass(61);
    // Both would do together, and web would hold two of the four that it is guaranteed.
    f.submit(of("lab", 4));
    assert_eq!(states(&f, &[low, normal]), [S::Running, S::Running]);
    f.submit(of("lab", 2));
    assert_eq!(states(&f, &[low, normal]), [S::Stopping, S::Running], "the less important one suffices");
}

/// Histories of tenants that borrow and take back: the auditor, which has books of its own, looks at each
/// decision (`Fleet::run`), and who takes back is told so in the journal.
#[test]
fn histories_that_take_back_pass_the_auditor() {
    const NAMES: [Option<&str>; 4] = [Some("lab"), Some("vision"), Some("web"), None];
    let (mut taken_back, mut draws) = (0, 20_261_129_u64);
    let mut draw = |n: u64| {
        draws = draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draws >> 33) % n
    };
    for _ in 0..40 {
        let mut f = Fleet::with_nodes(2);
        let guaranteed = |n: u64| u32::try_from(n).ok().filter(|n| *n > 0);
        f.plan_and_apply(set("lab", None, guaranteed(draw(6) + 3), None, &[])).unwrap();
        f.plan_and_apply(set("vision", Some("lab"), guaranteed(draw(3)), None, &[])).unwrap();
        f.plan_and_apply(set("web", None, guaranteed(draw(9)), None, &[])).unwrap();
        for _ in 0..40 {
            let (tenant, gpus) = (NAMES[usize::try_from(draw(4)).unwrap()], u32::try_from(draw(4)).unwrap() + 1);
            let priority = [Priority::Normal, Priority::Normal, Priority::High][usize::try_from(draw(3)).unwrap()];
            let preemptible = Some(draw(5) > 0);
            let tenant = tenant.map(str::to_owned);
            f.submit(WorkloadSpec { tenant, preemptible, priority: Some(priority), ..of("lab", gpus) });
            let all: Vec<WorkloadId> = f.cluster.workloads.iter().map(|w| w.workload_id).collect();
            for id in all {
                match f.workload(id).state {
                    S::Stopping => f.report_all(id, N::Stopped, C::StopRequested, None),
                    S::Placed => f.report_all(id, N::Running, C::Progress, None),
                    S::Running if draw(12) == 0 => f.report_all(id, N::Completed, C::Exited, Some(0)),
                    _ => {}
                }
            }
            f.pass(i64::try_from(draw(90)).unwrap());
        }
        let claims = f.journal.iter().filter_map(|record| match &record.event {
            Event::RoomClaimed { claim: Some(claim), .. } => Some(claim.reclaims),
            _ => None,
        });
        taken_back += claims.filter(|reclaims| *reclaims).count();
    }
    assert!(taken_back > 20, "{taken_back}");
}
