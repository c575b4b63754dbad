//! Which architecture a GPU is of, and what codes mean on it.

use crate::diagnose::analyze::{Analyzer, Verdict};
use crate::diagnose::architecture::Architecture;
use crate::diagnose::code::Action;
use crate::diagnose::device::Unit;
use crate::diagnose::observe::Observer;
use crate::diagnose::policy::Policy;
use crate::diagnose::rules::Rules;

fn judge(text: &str) -> Verdict {
    let mut observer = Observer::new(Rules::built_in(), "log");
    observer.text(text);
    Analyzer::new(Rules::built_in(), Policy::ours()).judge(&observer.finish())
}

/// A table of `nvidia-smi` with these models.
fn table(models: &[(&str, &str)]) -> String {
    let row = |(model, address): &(&str, &str)| {
        format!("|   0  {model:<28} On  |   0000{address}.0 Off |                    0 |\n")
    };
    let rows: String = models.iter().map(row).collect();
    format!("+-----------------------------------------+----------------------+\n{rows}+-----+\n")
}

fn xid(code: u32, rest: &str) -> String {
    format!("NVRM: Xid (PCI:0000:3b:00): {code}, {rest}\n")
}

const LINK: &str = "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x00000000 0x00000000)";

#[test]
fn models_tell_their_architecture() {
    let rules = &Rules::built_in().architectures;
    for (model, told) in [
        ("NVIDIA H100 80GB HBM3", Some(Architecture::Hopper)),
        ("H100", Some(Architecture::Hopper)),
        ("NVIDIA A100-SXM4-80GB", Some(Architecture::Ampere)),
        ("NVIDIA RTX A6000", Some(Architecture::Ampere)),
        ("NVIDIA RTX 6000 Ada Generation", Some(Architecture::Ada)),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", Some(Architecture::Blackwell)),
        ("NVIDIA GB200", Some(Architecture::Blackwell)),
        ("Tesla V100-SXM2-32GB", Some(Architecture::Volta)),
        ("Tesla T4", Some(Architecture::Turing)),
        ("NVIDIA L40S", Some(Architecture::Ada)),
        ("NVIDIA GeForce RTX 4090", Some(Architecture::Ada)),
        ("NVIDIA GeForce RTX 5090 D", Some(Architecture::Blackwell)),
        ("NVIDIA GeForce GTX 980 Ti", Some(Architecture::Maxwell)),
        ("NVIDIA GeForce GTX 1660", Some(Architecture::Turing)),
        // There is one of that number of Turing, and one of Ada.
        ("NVIDIA RTX 4000", None),
        ("NVIDIA UNIX Open Kernel Module for x86_64", None),
        ("AMD Instinct MI300X", None),
        ("GeForce RTX", None),
        ("", None),
    ] {
        assert_eq!(rules.of_model(model), told, "{model}");
    }
    for (capability, told) in [
        ("9.0", Some(Architecture::Hopper)),
        ("8.6", Some(Architecture::Ampere)),
        ("8.9", Some(Architecture::Ada)),
        ("12.1", Some(Architecture::Blackwell)),
        ("6.1", Some(Architecture::Pascal)),
        ("1.3", None),
        ("gfx942", None),
    ] {
        assert_eq!(rules.of_capability(capability), told, "{capability}");
    }
}

#[test]
fn a_code_of_another_architecture_is_no_reason_to_reset() {
    let link = xid(149, LINK);
    let alone = judge(&link);
    assert!(alone.action.is_hardware(), "{alone:?}");
    for told in [
        table(&[("NVIDIA H100 80GB HBM3", "0000:3b:00")]),
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d1f3a77-0000-1111-2222-333344445555)\n".to_owned(),
        "    Product Architecture                  : Hopper\n".to_owned(),
        "found 1 device: name: NVIDIA A30, pci bus id: 0000:3b:00.0, compute capability: 8.0\n".to_owned(),
    ] {
        let verdict = judge(&(told.clone() + &link));
        assert_eq!((verdict.action, verdict.confidence), (Action::ContactSupport, 0.3), "{told}");
        assert!(verdict.why[0].starts_with("the GPU is of "), "{:?}", verdict.why);
        // What is said of the model may come after the fault.
        assert_eq!(judge(&(link.clone() + &told)).action, Action::ContactSupport, "{told}");
    }
}

#[test]
fn what_is_not_known_or_fits_changes_nothing() {
    let link = xid(149, LINK);
    let alone = judge(&link);
    for told in [
        table(&[("NVIDIA GB200", "0000:3b:00")]),
        "    Product Name                          : NVIDIA B200\n".to_owned(),
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.82.07\n".to_owned(),
        // Another GPU's model, beside this one's and where there are several kinds.
        table(&[("NVIDIA H100 80GB HBM3", "0000:5d:00"), ("NVIDIA B200", "0000:3b:00")]),
        "GPU 0: NVIDIA H100\nGPU 1: NVIDIA B200\n".to_owned(),
    ] {
        let verdict = judge(&(told.clone() + &link));
        assert_eq!((verdict.action, verdict.confidence), (alone.action, alone.confidence), "{told}");
        assert_eq!(verdict.why, alone.why, "{told}");
    }
}

#[test]
fn the_drivers_own_verdict_still_decides() {
    let told = table(&[("NVIDIA H100 80GB HBM3", "0000:3b:00")]);
    let verdict = xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)");
    assert_eq!(judge(&(told + &xid(149, LINK) + &verdict)).action, Action::RebootNode);
}

#[test]
fn every_bound_is_kept_on_both_sides() {
    let rules = Rules::built_in();
    for bound in &rules.architectures.bounds {
        for number in &bound.xids {
            let on = |architecture: Architecture| {
                let mut observer = Observer::new(rules, "log");
                observer.text(&xid(*number, "pid=1, name=python3"));
                observer.gpu(architecture, [Unit::Pci("0000:3b:00".into())]);
                Analyzer::new(rules, Policy::ours()).judge(&observer.finish())
            };
            let alone = judge(&xid(*number, "pid=1, name=python3"));
            for architecture in
                [Architecture::Kepler, Architecture::Turing, Architecture::Ampere, Architecture::Blackwell]
            {
                let verdict = on(architecture);
                if bound.architectures.contains(&architecture) || bound.elsewhere.is_none() {
                    assert_eq!(verdict.action, alone.action, "{} on {architecture}", bound.id);
                    let here = bound.here.as_ref().filter(|_| bound.architectures.contains(&architecture));
                    assert!(here.is_none_or(|here| verdict.why[0].contains(here)), "{:?}", verdict.why);
                } else {
                    let told = (verdict.action, verdict.confidence);
                    assert_eq!(told, (Action::ContactSupport, 0.3), "{} on {architecture}", bound.id);
                }
            }
        }
    }
}

#[test]
fn a_rule_of_a_text_is_bound_too() {
    let retired = "    Retired Pages\n        Pending Page Blacklist            : Yes\n";
    let remapped = "    Remapped Rows\n        Pending                           : Yes\n";
    let on = |model: &str, text: &str| judge(&format!("    Product Name                          : {model}\n{text}"));
    for (text, fits, other) in
        [(remapped, "NVIDIA A100-SXM4-80GB", "Tesla V100-SXM2-32GB"), (retired, "Tesla V100", "NVIDIA H100")]
    {
        assert_eq!(judge(text).action, Action::ResetGpu, "{text}");
        assert_eq!(on(fits, text).action, Action::ResetGpu, "{text}");
        let verdict = on(other, text);
        assert_eq!((verdict.action, verdict.confidence), (Action::ContactSupport, 0.3), "{text}");
    }
}

#[test]
fn prose_that_names_an_architecture_tells_of_no_gpu() {
    let link = xid(149, LINK);
    let alone = judge(&link);
    for prose in [
        "NVIDIA Hopper and Blackwell GPUs report this code\n",
        "NVIDIA recommends driver 580 for Hopper\n",
        "NVIDIA H100 GPUs need a newer driver\n",
        "Tesla V100 support ends with CUDA 13\n",
        "see the NVIDIA Hopper Tuning Guide\n",
    ] {
        let verdict = judge(&(prose.to_owned() + &link));
        assert_eq!((verdict.action, &verdict.why), (alone.action, &alone.why), "{prose}");
    }
    // Of a GPU that the line names, its words are told.
    let named = judge(&("GPU 0000:3b:00.0 is an NVIDIA H100 with a bad link\n".to_owned() + &link));
    assert_eq!(named.action, Action::ContactSupport);
}
