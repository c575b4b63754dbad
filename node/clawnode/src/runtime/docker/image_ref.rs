//! Names of images: parsed once, compared and shown in one form.

use std::fmt;

/// Longest name of an image, bytes.
const CHARS_MAX: usize = 512;
/// The registry that a short name means to most people.
pub const DOCKER_HUB: &str = "docker.io";

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// It is not of the form.
    #[error("image {got:?} is not [registry[:port]/]name[:tag][@sha256:digest]: {why}")]
    Malformed {
        /// The text.
        got: String,
        /// What is wrong.
        why: &'static str,
    },
    /// It names no registry, and this node expands none.
    #[error("image {got:?} names no registry and this node expands no short names; write registry/{got}")]
    ShortName {
        /// The text.
        got: String,
    },
}

/// One image, with its registry and with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageRef {
    /// Reads a name. One without a registry belongs to `default_registry`; one
    /// without tag and digest means the tag `latest`.
    ///
    /// # Errors
    /// [`ImageRefError`].
    pub fn parse(text: &str, default_registry: Option<&str>) -> Result<Self, ImageRefError> {
        let wrong = |why| ImageRefError::Malformed { got: text.chars().take(CHARS_MAX).collect(), why };
        if text.len() > CHARS_MAX {
            return Err(wrong("it is too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("a digest is sha256: and 64 hexadecimal digits"));
        }
        // A colon behind the last slash is a tag's, one before it a port's.
        let name_end = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = match name_end {
            Some(colon) => (&rest[..colon], Some(rest[colon + 1..].to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag is up to 128 letters, digits and _.-"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, repository)) if is_host(first) => (hub(first).to_owned(), repository.to_owned()),
            Some(_) | None => {
                let short = || ImageRefError::ShortName { got: text.to_owned() };
                (hub(default_registry.ok_or_else(short)?).to_owned(), name.to_owned())
            }
        };
        let is_official = registry == DOCKER_HUB && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository };
        if !is_registry(&registry) {
            return Err(wrong("a registry is a host name and perhaps a port"));
        }
        if !repository.split('/').all(is_segment) {
            return Err(wrong("a name is made of lower-case letters, digits and ._- between slashes"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }

    /// Host of the registry, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Name without tag and digest: registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// How engines are told: by digest alone if there is one, for engines do not
    /// agree on names that have both.
    pub fn engine_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.name()),
            (None, Some(tag)) => format!("{}:{tag}", self.name()),
            (None, None) => self.name(),
        }
    }

    /// The two arguments of a pull: name, and tag or digest.
    pub fn pull_arguments(&self) -> (String, String) {
        let what = self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest");
        (self.name(), what.to_owned())
    }

    /// Every form that a rule may mean: the name, with its tag, with its digest.
    pub fn forms(&self) -> Vec<String> {
        let name = self.name();
        let tagged = self.tag.as_ref().map(|tag| format!("{name}:{tag}"));
        let pinned = self.digest.as_ref().map(|digest| format!("{name}@{digest}"));
        std::iter::once(name).chain(tagged).chain(pinned).collect()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Docker's own names for the same registry.
fn hub(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    }
}

/// What stands before the first slash is a registry if it looks like a host.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = is_v6.map_or_else(|| host.split('.').all(is_label), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    is_host && port.is_none_or(is_port)
}

/// Lower-case words, divided by one dot, one or two underscores, or dashes.
fn is_segment(segment: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    let ends = bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    let allowed = bytes.iter().all(|b| is_word(*b) || b"._-".contains(b));
    ends && allowed && !segment.contains("..") && !segment.contains("___") && !segment.contains("._")
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.len() <= 128 && bytes.first().is_some_and(is_word) && bytes.iter().all(|b| is_word(b) || b".-".contains(b))
}

/// Whether it is a digest of the one kind that engines agree on.
fn is_digest(digest: &str) -> bool {
    let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hexadecimal(hex))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match ImageRef::parse(text, Some(DOCKER_HUB)) {
            Ok(image) => image.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("vllm/vllm-openai:v0.6.3", "docker.io/vllm/vllm-openai:v0.6.3".to_owned()),
            ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1".to_owned()),
            ("127.0.0.1:5000/claw/busybox:1", "127.0.0.1:5000/claw/busybox:1".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("[::1]:5000/x:1", "[::1]:5000/x:1".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:1@{digest}"), format!("ghcr.io/a/b:1@{digest}")),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
        }
        let both = ImageRef::parse(&format!("ghcr.io/a/b:1@{digest}"), None).unwrap();
        assert_eq!(both.engine_name(), format!("ghcr.io/a/b@{digest}"));
        for wrong in ["", ":1", "a:", "A/b", "a//b", "a/../b", "a@sha256:12", "ghcr.io:x/a", "a b", "-a", "a/b:-x"] {
            assert!(ImageRef::parse(wrong, Some(DOCKER_HUB)).is_err(), "{wrong}");
        }
        let short = ImageRef::parse("a/b:1", None).unwrap_err().to_string();
        expect_test::expect![[
            r#"image "a/b:1" names no registry and this node expands no short names; write registry/a/b:1"#
        ]]
        .assert_eq(&short);
    }

    proptest! {
        /// R1: what is shown reads back as the same; R2: no text makes the parser panic.
        #[test]
        fn the_canonical_form_is_stable(text in "[a-z0-9.:/@_-]{0,40}|[a-z]{1,5}(\\.[a-z]{2,3})?(:[0-9]{1,4})?/[a-z]{1,6}(/[a-z]{1,4})?(:[a-z0-9]{1,5})?|\\PC{0,30}") {
            if let Ok(image) = ImageRef::parse(&text, Some(DOCKER_HUB)) {
                prop_assert_eq!(ImageRef::parse(&image.to_string(), None), Ok(image.clone()), "R1");
                prop_assert!(image.tag().is_some() || image.digest().is_some());
            }
        }
    }
}
