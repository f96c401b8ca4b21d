//! Tables as kernels write them, and as no kernel should.

use super::*;

const STAT: &str = "\
cpu  10132153 290696 3084719 46828483 16683 0 25195 175628 0 0
cpu0 1393280 32966 572056 13343292 6130 0 17875 0 23933 0
intr 199292
ctxt 1990473
btime 1062191376
";

const DISKS: &str = "\
   7       0 loop0 52 0 712 10 0 0 0 0 0 24 10 0 0 0 0 0 0
   1       0 ram0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 259       0 nvme0n1 100 5 2000 30 200 6 4000 40 0 500 70 0 0 0 0 0 0
 259       1 nvme0n1p1 90 5 1900 30 200 6 4000 40 0 500 70 0 0 0 0 0 0
   8       0 sda 1 0 10 0 2 0 20 0 0 7 0
   8       1 sda1 1 0 10 0 2 0 20 0 0 7 0
   8      16 sdb1 1 0 10 0 2 0 20 0 0 7 0
   9       0 md12 1 0 10 0 2 0 20 0 0 7 0
   8      32 short 1 0 10
   8      48 odd x y z x y z x y z x y z
";

const NETWORKS: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0:2000 20 0 0 0 0 0 0 500 5 0 0 0 0 0 0
eth0:1: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0
 wlan0: 5 5
";

#[test]
fn the_processor_line_is_the_one_of_all_processors() {
    let expected = [10_132_153, 290_696, 3_084_719, 46_828_483, 16_683, 0, 25_195, 175_628];
    assert_eq!(parse_cpu(STAT), expected);
}

#[test]
fn an_old_or_broken_processor_line_gives_what_it_has() {
    assert_eq!(parse_cpu("cpu  1 2 3 4\n"), [1, 2, 3, 4]);
    assert_eq!(parse_cpu("cpu  1 2 x 4\n"), [1, 2]);
    assert_eq!(parse_cpu("cpu0 1 2 3\n"), [0_u64; 0]);
    assert_eq!(parse_cpu(""), [0_u64; 0]);
}

#[test]
fn memory_is_in_bytes_and_missing_lines_are_left_out() {
    let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\nCached:  10 kB\n\
                SwapTotal: 0 kB\nSwapFree: 0 kB\nCachedX: 5 kB\nDirty: 3 MB\n";
    let expected = [
        ("memory.used", 12_288.0 * 1024.0),
        ("memory.available", 4096.0 * 1024.0),
        ("memory.cached", 10_240.0),
        ("swap.used", 0.0),
    ];
    assert_eq!(parse_memory(text), expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    assert_eq!(parse_memory("MemTotal: 99999999999999999999 kB\n"), []);
    // More available than there is would be a negative use.
    assert_eq!(parse_memory("MemTotal: 1 kB\nMemAvailable: 2 kB\n").len(), 1);
}

#[test]
fn partitions_loops_and_broken_lines_are_no_disks() {
    let disks = parse_disks(DISKS);
    // `sdb1` stays: there is no `sdb` it could be a part of. `md12` is no part of an `md1` either.
    assert_eq!(disks.keys().collect::<Vec<_>>(), ["md12", "nvme0n1", "sda", "sdb1"]);
    let disk = Disk { bytes_read: 2000 * 512, bytes_written: 4000 * 512, busy_ms: 500 };
    assert_eq!(disks["nvme0n1"], disk);
}

#[test]
fn networks_are_read_with_and_without_a_space_behind_the_colon() {
    let networks = parse_networks(NETWORKS);
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["eth0", "eth0:1", "lo"]);
    assert_eq!(networks["eth0"], Network { bytes_received: 2000, bytes_sent: 500 });
}

#[test]
fn the_number_of_devices_is_bounded() {
    let many: String =
        (0..10_000).map(|n| format!("veth{n:05}: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n")).collect();
    assert_eq!(parse_networks(&many).len(), DEVICES_MAX);
}

fn counters(cpu: &[u64], disk: Disk, network: Network) -> Counters {
    Counters {
        cpu: cpu.to_vec(),
        disks: BTreeMap::from([("sda".to_owned(), disk)]),
        networks: BTreeMap::from([("eth0".to_owned(), network)]),
    }
}

#[test]
fn counters_become_rates() {
    let before = counters(&[10, 0, 0, 90], Disk::default(), Network::default());
    let disk = Disk { bytes_read: 1000, bytes_written: 500, busy_ms: 1000 };
    let network = Network { bytes_received: 10, bytes_sent: 20 };
    let after = counters(&[60, 0, 0, 240], disk, network);
    let figures: BTreeMap<String, f64> =
        rates(&before, &after, Duration::from_secs(2)).into_iter().collect();
    for (series, value) in [
        ("cpu.user", 25.0),
        ("cpu.idle", 75.0),
        ("disk.sda.read", 500.0),
        ("disk.sda.written", 250.0),
        ("disk.sda.busy", 50.0),
        ("net.eth0.received", 5.0),
        ("net.eth0.sent", 10.0),
    ] {
        assert_eq!(figures.get(series), Some(&value), "{series}");
    }
}

#[test]
fn a_counter_that_went_backwards_gives_no_figure() {
    let disk = |bytes_read| Disk { bytes_read, ..Disk::default() };
    let before = counters(&[10, 0, 0, 90], disk(1000), Network::default());
    let after = counters(&[20, 0, 0, 80], disk(10), Network::default());
    let figures = rates(&before, &after, Duration::from_secs(1));
    let names: Vec<&str> = figures.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.iter().any(|name| name.starts_with("cpu.")), "{names:?}");
    assert!(!names.contains(&"disk.sda.read") && names.contains(&"disk.sda.written"), "{names:?}");
    assert!(figures.iter().all(|(_, value)| *value >= 0.0));
}

#[test]
fn a_device_that_just_came_has_no_rate_yet() {
    let before = Counters::default();
    let after = counters(&[1, 2], Disk::default(), Network::default());
    assert_eq!(rates(&before, &after, Duration::from_secs(1)), []);
    assert_eq!(rates(&after, &after, Duration::ZERO), []);
}

#[test]
fn this_machine_has_figures() {
    if !std::path::Path::new("/proc/stat").exists() {
        return;
    }
    let mut sampler = Sampler::default();
    let first = sampler.sample().unwrap();
    assert!(first.iter().any(|reading| reading.series == "memory.used" && reading.value > 0.0));
    assert!(first.iter().all(|reading| reading.time > 1_700_000_000_000_000));
}
