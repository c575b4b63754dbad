//! Which images a node runs, and when it asks the registry.

use claw_proto::spec::PullPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image_ref::{DOCKER_HUB, ImageRef, ImageRefError};

/// Rules for images, `[runtime.docker.images]`.
///
/// Patterns match `registry/repository`, `registry/repository:tag` or
/// `registry/repository@digest`: `*` within one segment, `**` over segments, `?`
/// one character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Patterns of what may run; everything if empty.
    pub allow: Vec<String>,
    /// Patterns of what may not run, whatever `allow` says.
    pub deny: Vec<String>,
    /// Whether an image must be named by its digest.
    pub require_digest: bool,
    /// Registry of names that have none; an empty text refuses them.
    pub default_registry: String,
    /// Most that the images that this node fetched may take, MiB; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_mib_max: Option<u64>,
    /// Least free space on the engine's disk, MiB: below it unused images go.
    pub disk_free_mib_min: u64,
    /// Patterns of images that are never removed.
    pub keep: Vec<String>,
    /// Images are not removed until they are unused for so long, seconds.
    pub unused_s_min: u64,
    /// Longest that fetching one image may take, seconds.
    pub pull_timeout_s: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            require_digest: false,
            default_registry: DOCKER_HUB.to_owned(),
            images_mib_max: None,
            disk_free_mib_min: 2_048,
            keep: Vec::new(),
            unused_s_min: 600,
            pull_timeout_s: 7_200,
        }
    }
}

/// Why an image may not run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefusal {
    /// It is no image's name.
    #[error(transparent)]
    Name(#[from] ImageRefError),
    /// A rule of the node forbids it.
    #[error("image {image} is forbidden by this node's rule runtime.docker.images.deny {rule:?}")]
    Denied {
        /// Which image.
        image: String,
        /// The pattern.
        rule: String,
    },
    /// No rule of the node allows it.
    #[error("image {image} is not among what this node allows (runtime.docker.images.allow: {})", .allowed.join(", "))]
    NotAllowed {
        /// Which image.
        image: String,
        /// The patterns.
        allowed: Vec<String>,
    },
    /// It is named by its tag alone.
    #[error(
        "image {image} has no digest, and this node's runtime.docker.images.require_digest asks for one; write {name}@sha256:…"
    )]
    DigestRequired {
        /// Which image.
        image: String,
        /// Its name alone.
        name: String,
    },
}

impl ImagesConfig {
    /// Reads an image's name and holds it against the rules.
    ///
    /// # Errors
    /// [`ImageRefusal`], with the rule.
    pub fn admit(&self, text: &str) -> Result<ImageRef, ImageRefusal> {
        let default = Some(self.default_registry.as_str()).filter(|registry| !registry.is_empty());
        let image = ImageRef::parse(text, default)?;
        let forms = image.forms();
        let matching =
            |rules: &[String]| rules.iter().find(|rule| forms.iter().any(|form| matches(rule, form))).cloned();
        if let Some(rule) = matching(&self.deny) {
            return Err(ImageRefusal::Denied { image: image.to_string(), rule });
        }
        if !self.allow.is_empty() && matching(&self.allow).is_none() {
            return Err(ImageRefusal::NotAllowed { image: image.to_string(), allowed: self.allow.clone() });
        }
        if self.require_digest && image.digest().is_none() {
            return Err(ImageRefusal::DigestRequired { image: image.to_string(), name: image.name() });
        }
        Ok(image)
    }

    /// Whether an image of that name (as engines say it) is never removed.
    pub fn keeps(&self, name: &str) -> bool {
        let Ok(image) = ImageRef::parse(name, Some(DOCKER_HUB)) else { return false };
        image.forms().iter().any(|form| self.keep.iter().any(|rule| matches(rule, form)))
    }
}

/// When the registry is asked: as the workload says, else always for `latest`,
/// whose meaning moves, and only if the image is missing for any other.
pub fn pull_policy(asked: Option<PullPolicy>, image: &ImageRef) -> PullPolicy {
    let moves = image.digest().is_none() && image.tag() == Some("latest");
    asked.unwrap_or(if moves { PullPolicy::Always } else { PullPolicy::IfMissing })
}

/// Whether a pattern matches a whole text. No recursion, so that no pattern is slow:
/// each kind of star remembers one place to come back to.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on in the pattern, and how far that star reached.
    let mut wide: Option<(usize, usize)> = None;
    let mut narrow: Option<(usize, usize)> = None;
    loop {
        let same = |p: usize, t: usize| pattern.get(p).is_some_and(|c| *c == text[t] || (*c == '?' && text[t] != '/'));
        if pattern.get(p) == Some(&'*') {
            let is_wide = pattern.get(p + 1) == Some(&'*');
            p += if is_wide { 2 } else { 1 };
            if is_wide {
                (wide, narrow) = (Some((p, t)), None);
            } else {
                narrow = Some((p, t));
            }
        } else if t == text.len() && p == pattern.len() {
            return true;
        } else if t < text.len() && same(p, t) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, reached)) =
            narrow.filter(|(_, reached)| *reached < text.len() && text[*reached] != '/')
        {
            narrow = Some((after, reached + 1));
            (p, t) = (after, reached + 1);
        } else if let Some((after, reached)) = wide.filter(|(_, reached)| *reached < text.len()) {
            (wide, narrow) = (Some((after, reached + 1)), None);
            (p, t) = (after, reached + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(config: &ImagesConfig, image: &str) -> String {
        config.admit(image).map_or_else(|refusal| refusal.to_string(), |image| format!("runs {image}"))
    }

    #[test]
    fn rules_say_which_of_them_refuses() {
        let config = ImagesConfig {
            allow: vec!["docker.io/vllm/*".into(), "ghcr.io/acme/**".into()],
            deny: vec!["**:latest".into(), "ghcr.io/acme/secret".into()],
            ..ImagesConfig::default()
        };
        let pinned = format!("ghcr.io/acme/a/b@sha256:{}", "0".repeat(64));
        let strict = ImagesConfig { require_digest: true, default_registry: String::new(), ..ImagesConfig::default() };
        let cases = [
            told(&config, "vllm/vllm-openai:v0.6.3"),
            told(&config, "vllm/vllm-openai"),
            told(&config, "vllm/a/b:1"),
            told(&config, "ghcr.io/acme/a/b:1"),
            told(&config, "ghcr.io/acme/secret:1"),
            told(&strict, "ghcr.io/acme/a:1"),
            told(&strict, "busybox:1"),
            told(&strict, &pinned),
        ];
        expect_test::expect![[r#"
            runs docker.io/vllm/vllm-openai:v0.6.3
            image docker.io/vllm/vllm-openai:latest is forbidden by this node's rule runtime.docker.images.deny "**:latest"
            image docker.io/vllm/a/b:1 is not among what this node allows (runtime.docker.images.allow: docker.io/vllm/*, ghcr.io/acme/**)
            runs ghcr.io/acme/a/b:1
            image ghcr.io/acme/secret:1 is forbidden by this node's rule runtime.docker.images.deny "ghcr.io/acme/secret"
            image ghcr.io/acme/a:1 has no digest, and this node's runtime.docker.images.require_digest asks for one; write ghcr.io/acme/a@sha256:…
            image "busybox:1" names no registry and this node expands no short names; write registry/busybox:1
            runs ghcr.io/acme/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000"#]]
        .assert_eq(&cases.join("\n"));
    }

    #[test]
    fn the_registry_is_asked_for_what_moves() {
        let policy = |text: &str| pull_policy(None, &ImageRef::parse(text, Some(DOCKER_HUB)).unwrap());
        assert_eq!(policy("a"), PullPolicy::Always);
        assert_eq!(policy("a:1"), PullPolicy::IfMissing);
        assert_eq!(policy(&format!("a@sha256:{}", "0".repeat(64))), PullPolicy::IfMissing);
    }

    /// What the matcher must agree with, as its definition reads.
    fn slowly(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            (['*', '*', rest @ ..], _) => (0..=text.len()).any(|n| slowly(rest, &text[n..])),
            (['*', rest @ ..], _) => {
                let end = text.iter().position(|c| *c == '/').unwrap_or(text.len());
                (0..=end).any(|n| slowly(rest, &text[n..]))
            }
            ([], []) => true,
            (['?', rest @ ..], [c, more @ ..]) if *c != '/' => slowly(rest, more),
            ([p, rest @ ..], [c, more @ ..]) if p == c => slowly(rest, more),
            (_, _) => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// P1: the fast matcher is the definition; P2: deny wins over allow.
        #[test]
        fn patterns_mean_what_they_say(pattern in "[ab/*?]{0,7}", text in "[ab/]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), slowly(&chars(&pattern), &chars(&text)), "P1");
            let config = ImagesConfig { allow: vec!["**".into()], deny: vec!["**".into()], ..ImagesConfig::default() };
            prop_assert!(config.admit("ghcr.io/a/b:1").is_err(), "P2");
        }
    }
}
