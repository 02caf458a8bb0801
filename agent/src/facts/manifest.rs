//! `manifest.*` and `proc.exe.*`: is the program that did it expected?
//!
//! The verdict is a lazy fact: until it is known it is [`Fact::Pending`], and only rules that read it wait.

use purser_rules::{Fact, FieldId, FieldRef};

use super::{NOT_APPLICABLE, NOT_COLLECTED, Sight, UNKNOWN, boolean, unsigned};
use crate::manifest::Judgement;

impl Sight<'_> {
    pub(super) fn manifest_fact(&self, field: FieldRef<'_>) -> Option<Fact<'_>> {
        Some(match field.id {
            FieldId::MANIFEST_VERDICT => match self.container {
                // A process outside containers has no image to be compared with.
                None => Fact::text(b"host"),
                Some(_) => self.judged(|judgement| Fact::text(judgement.verdict.as_str().as_bytes())),
            },
            FieldId::MANIFEST_REASON => self.judged(|judgement| Fact::text(judgement.reason.as_str().as_bytes())),
            FieldId::MANIFEST_STATUS => self.judged(|judgement| Fact::text(judgement.status.as_str().as_bytes())),
            FieldId::MANIFEST_SOURCE => self.judged(|judgement| {
                judgement.source().map_or(UNKNOWN, |source| Fact::text(source.as_str().as_bytes()))
            }),
            FieldId::MANIFEST_DIGEST => self.judged(|judgement| match &judgement.manifest {
                Some(manifest) => match manifest.header().manifest_digest {
                    Some(digest) => self.keep_text(digest.to_string().as_bytes()),
                    None => UNKNOWN,
                },
                None => UNKNOWN,
            }),
            FieldId::MANIFEST_COVERAGE => self.judged(|judgement| match &judgement.manifest {
                Some(manifest) => Fact::text(manifest.header().coverage.as_str().as_bytes()),
                None => UNKNOWN,
            }),
            FieldId::PROC_EXE_SHA256 => self.judged(|judgement| match judgement.sha256 {
                Some(digest) => self.keep_text(digest.hex().as_bytes()),
                None => UNKNOWN,
            }),
            FieldId::PROC_EXE_SIZE => self.process.program.file.map_or(UNKNOWN, |file| unsigned(file.size)),
            FieldId::PROC_EXE_LAYER => self.judged(|judgement| {
                let layer = judgement.layer().map(usize::from);
                let digests = judgement.manifest.as_ref().map(|manifest| &manifest.header().layers);
                match layer.zip(digests).and_then(|(layer, layers)| layers.get(layer)) {
                    Some(layer) => self.keep_text(layer.diff_id.to_string().as_bytes()),
                    None => UNKNOWN,
                }
            }),
            FieldId::PROC_EXE_UPPER => self.exe_in_layer(|overlay| overlay.upper),
            FieldId::PROC_EXE_COPIED_UP => self.exe_in_layer(|overlay| overlay.upper && overlay.has_lower),
            FieldId::PROC_IS_ENTRYPOINT => match self.container {
                Some(container) => boolean(self.process.vtgid == 1 && self.process.cgroup_id == container.cgroup_id),
                None => NOT_APPLICABLE,
            },
            FieldId::MANIFEST_SIGNER
            | FieldId::MANIFEST_ISSUER
            | FieldId::PROC_EXE_PACKAGE
            | FieldId::PROC_EXE_PACKAGE_VERSION
            | FieldId::PROC_EXE_BUILD_ID
            | FieldId::PROC_SCRIPT_PATH
            | FieldId::PROC_SCRIPT_SHA256
            | FieldId::PROC_SCRIPT_VERDICT
            | FieldId::LIB_PATH
            | FieldId::LIB_SHA256
            | FieldId::LIB_VERDICT => NOT_COLLECTED,
            _ => return None,
        })
    }

    fn judged<'s>(&'s self, value: impl FnOnce(&'s Judgement) -> Fact<'s>) -> Fact<'s> {
        if self.container.is_none() {
            return NOT_APPLICABLE;
        }
        self.process.program.judgement.get().map_or(Fact::Pending, value)
    }

    pub(super) fn exe_in_layer(&self, is: fn(&crate::event::Overlay) -> bool) -> Fact<'_> {
        self.process.program.file.and_then(|file| file.in_layer(is)).map_or(UNKNOWN, boolean)
    }
}
