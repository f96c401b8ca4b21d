//! What a witness is told of kernels, and when.

use super::*;

const MS: Duration = Duration::from_millis(1);
const ZERO: Duration = Duration::ZERO;

type Suspect = Option<(u64, [u8; 32])>;

/// After how many loads and submissions, and what.
type Told = Arc<Mutex<Vec<(usize, usize, Suspect)>>>;

fn witnessed() -> (Rig, Told) {
    let mut rig = Rig::new(terms());
    let told = witness(&mut rig);
    (rig, told)
}

fn witness(rig: &mut Rig) -> Told {
    let told = Told::default();
    let (heard, probe) = (Arc::clone(&told), Arc::clone(&rig.probe));
    rig.host.set_witness(Box::new(move |suspect| {
        let counts = probe.lock().map(|probe| (probe.loads, probe.submits)).unwrap();
        heard.lock().unwrap().push((counts.0, counts.1, suspect));
    }));
    told
}

fn take(told: &Told) -> Vec<(usize, usize, Suspect)> {
    std::mem::take(&mut told.lock().unwrap())
}

/// Without when.
fn suspects(told: &Told) -> Vec<Suspect> {
    take(told).into_iter().map(|(_, _, suspect)| suspect).collect()
}

fn of(tenant: Tenant, source: &str) -> Suspect {
    Some((tenant.0, Kernel::hash_of(source, "main")))
}

#[test]
fn a_kernel_is_told_before_it_is_loaded() {
    let (mut rig, told) = witnessed();
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    rig.kernel(who, ADD);
    assert_eq!(take(&told), [(0, 0, of(A, ADD)), (1, 0, None)]);
    rig.kernel(who, ADD);
    assert_eq!(take(&told), [], "it is loaded already");
    rig.kernel(other, ADD);
    assert_eq!(take(&told), [(1, 0, of(B, ADD)), (2, 0, None)]);
    assert_eq!(rig.host.suspect(), None);
    rig.close_all();
}

#[test]
fn a_kernel_is_told_before_it_runs_and_once() {
    let (mut rig, told) = witnessed();
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ADD, 8);
    let buffer = rig.buffer(who, &[0; 32]);
    take(&told);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(take(&told), [], "the device has nothing of it yet");
    rig.turn(ZERO);
    assert_eq!(take(&told), [(1, 0, of(A, ADD))]);
    assert_eq!(rig.host.suspect(), of(A, ADD));
    rig.run();
    let heard = suspects(&told);
    assert_eq!((heard.last(), rig.host.suspect()), (Some(&None), None));
    let before = [vec![of(A, ADD)], heard].concat();
    assert!(before.windows(2).all(|two| two[0] != two[1]), "only what is new: {before:?}");
    rig.close_all();
}

#[test]
fn the_oldest_is_suspect_again_when_the_device_has_another() {
    let (mut rig, told) = witnessed();
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    rig.begin_endless(who);
    assert_eq!(suspects(&told), [of(A, ENDLESS), None, of(A, ENDLESS)]);
    let graph = rig.graph(other, ADD, 1);
    assert_eq!(suspects(&told), [of(B, ADD), of(A, ENDLESS)], "while it is loaded");
    let buffer = rig.buffer(other, &[1]);
    rig.submit(other, graph, &[buffer]).unwrap();
    rig.turn(ZERO);
    assert_eq!(take(&told), [(2, 1, of(B, ADD)), (2, 2, of(A, ENDLESS))], "while it is given");
    assert_eq!(rig.host.suspect(), of(A, ENDLESS));
    rig.run();
    assert_eq!(suspects(&told).last(), Some(&None));
    rig.close_all();
}

#[test]
fn copies_are_of_no_kernel() {
    let (mut rig, told) = witnessed();
    let who = owner(A, 0, 0);
    let [from, to] = [3, 4].map(|word| Binding::whole(rig.buffer(who, &[word])));
    rig.host.copy(who, from, to).unwrap();
    rig.run();
    assert_eq!(take(&told), []);
    rig.close_all();
}

#[test]
fn a_device_that_is_lost_has_none() {
    let (mut rig, told) = witnessed();
    let who = owner(A, 0, 0);
    rig.begin_endless(who);
    rig.probe().fake.lose_at_submit(1);
    assert!(rig.probe().fake.submit(&[]).is_err());
    take(&told);
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.lost");
    assert_eq!(suspects(&told), [of(A, ADD), of(A, ENDLESS)], "its load has failed");
    assert!(matches!(rig.turn(MS), Verdict::Gone(_)));
    assert_eq!(suspects(&told), [None]);
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.lost");
    assert_eq!(take(&told), [], "nothing is loaded where there is no device");
}

#[test]
fn one_that_comes_late_is_told_what_is_suspect() {
    let mut rig = Rig::new(terms());
    assert_eq!(take(&witness(&mut rig)), []);
    rig.begin_endless(owner(A, 0, 0));
    assert_eq!(suspects(&witness(&mut rig)), [of(A, ENDLESS)]);
    rig.run();
    rig.close_all();
}
