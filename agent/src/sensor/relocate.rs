//! Fits the embedded object to the running kernel: finds each fact of `agent_common::KERNEL_FACTS` in
//! BTF and writes it into the instructions that ask for it. The counterpart of `object.rs` of the
//! programs; it knows nothing of what the facts are used for.

use agent_common::{
    Fact, Immediate, KERNEL_FACTS, RING_OPCODES, RING_OPERATIONS, RING_ROW, RingReads, RingTable, fact,
};
use object::{Object as _, ObjectSection as _, SectionKind};

use super::{arch::Machine, btf::Btf, overlay};

/// Why the object cannot be fitted.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// The kernel's types lack a member that the programs cannot do without.
    #[error("the kernel's BTF has no {0}: this kernel is older or newer than Purser knows")]
    MissingMember(String),
    /// The embedded object is damaged.
    #[error("the embedded eBPF object is damaged: {0}")]
    Object(#[from] object::Error),
    /// An instruction asks for a fact that the table does not have.
    #[error(
        "the embedded eBPF object asks for fact {0}, which this agent does not know: the two halves are of different builds"
    )]
    UnknownFact(u32),
}

/// What the kernel lets programs do, as far as it changes how they are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// `bpf_rdonly_cast` may be used (6.2 on); else everything is read by helper.
    pub(super) typed_loads: bool,
    /// The kernel takes 32-bit calls.
    pub(super) compat: bool,
}

/// The facts of one kernel.
pub(super) struct Facts {
    /// Value and whether there is one, by index.
    values: Vec<Option<u32>>,
    /// BTF id of `bpf_rdonly_cast`.
    rdonly_cast: Option<u32>,
}

/// `call N` that stands for `bpf_rdonly_cast` in the object.
const RDONLY_CAST: u32 = 0x7f00_0001;

/// eBPF instruction codes (`Documentation/bpf/standardization/instruction-set.rst`).
const ADD64_IMM: u8 = 0x07;
const SUB64_IMM: u8 = 0x17;
const MOV64_IMM: u8 = 0xb7;
const CALL: u8 = 0x85;
const ATOMIC64: u8 = 0xdb;
/// The immediates of an atomic add that gives the old value, and of an exchange.
const FETCHING: [u32; 2] = [0x01, 0xe1];
/// Source register of a call by BTF id.
const PSEUDO_KFUNC_CALL: u8 = 2;

impl Facts {
    /// Finds every fact.
    pub(super) fn resolve(btf: &Btf, machine: &Machine, abilities: Abilities) -> Result<Self, RelocateError> {
        let rdonly_cast = btf.function("bpf_rdonly_cast").filter(|_| abilities.typed_loads);
        let helper = |name: &str| btf.has_helper(name).then_some(1);
        let inode_size = required("inode", btf.size("inode"))?;
        let layouts =
            btf.structure("ovl_inode").is_none().then(|| overlay::Layouts { release: overlay::release(), inode_size });
        let offset = |path: &str| btf.offset(path).or_else(|| layouts.as_ref().and_then(|known| known.offset(path)));
        let mut values = Vec::with_capacity(KERNEL_FACTS.len());
        for (_, fact) in KERNEL_FACTS {
            let value = match *fact {
                Fact::Offset(paths) => Some(required(paths[0], paths.iter().find_map(|path| btf.offset(path)))?),
                Fact::OptionalOffset(paths) => paths.iter().find_map(|path| offset(path)),
                Fact::Distance(to, from) => offset(to).zip(offset(from)).and_then(|(to, from)| to.checked_sub(from)),
                Fact::TypeId(name) => btf.structure(name).map(u64::from),
                Fact::Size(name) => Some(required(name, btf.size(name))?),
                Fact::Register(name) => {
                    let (path, past) = required(name, machine.register(name))?;
                    Some(required(path, btf.offset(path))? + past)
                }
                Fact::Helper(name) => helper(name),
                // Of the same release, 5.12, and easier to see.
                Fact::Probe("atomic_fetch") => helper("check_mtu"),
                Fact::Probe("typed_loads") => rdonly_cast.map(|_| 1),
                Fact::Probe("compat") => (abilities.compat && machine.compat.is_some()).then_some(1),
                Fact::Probe("complete_has_cqe") => {
                    btf.tracepoint_argument("io_uring_complete", 2).filter(|name| name == "io_uring_cqe").map(|_| 1)
                }
                Fact::Probe(name) => return Err(RelocateError::MissingMember(name.to_owned())),
            };
            values.push(value.and_then(|value| u32::try_from(value).ok()));
        }
        Ok(Self { values, rdonly_cast })
    }

    /// Writes them into the instructions of an object. Returns how many were written.
    pub(super) fn apply(&self, object: &mut [u8]) -> Result<usize, RelocateError> {
        let mut code = Vec::new();
        {
            let file = object::File::parse(&*object)?;
            for section in file.sections() {
                if section.kind() != SectionKind::Text {
                    continue;
                }
                if let Some((start, length)) = section.file_range() {
                    code.push((start as usize, length as usize));
                }
            }
        }
        let mut written = 0;
        for (start, length) in code {
            let Some(section) = object.get_mut(start..start.saturating_add(length)) else { continue };
            for instruction in section.chunks_exact_mut(8) {
                written += usize::from(self.patch(instruction)?);
            }
        }
        Ok(written)
    }

    fn has(&self, fact: u32) -> bool {
        self.values.get(fact as usize).is_some_and(Option::is_some)
    }

    fn patch(&self, instruction: &mut [u8]) -> Result<bool, RelocateError> {
        let [code, registers, _, _, a, b, c, d] = *instruction else { return Ok(false) };
        let immediate = u32::from_le_bytes([a, b, c, d]);
        if code == CALL && immediate == RDONLY_CAST {
            // Left as it is, the call is of a helper that does not exist; the verifier never reaches it.
            let Some(id) = self.rdonly_cast else { return Ok(false) };
            instruction[1] = PSEUDO_KFUNC_CALL << 4;
            instruction[4..8].copy_from_slice(&id.to_le_bytes());
            return Ok(true);
        }
        if code == ATOMIC64 && FETCHING.contains(&immediate) && !self.has(fact::ATOMIC_FETCH) {
            // Never reached there, but the verifier refuses what it does not know wherever it stands.
            instruction[4..8].fill(0);
            return Ok(true);
        }
        let kind = immediate & 0xffff_0000;
        let index = immediate & 0xffff;
        let find = || self.values.get(index as usize).copied().ok_or(RelocateError::UnknownFact(index));
        if !matches!(code, ADD64_IMM | SUB64_IMM | MOV64_IMM) || registers >> 4 != 0 {
            return Ok(false);
        }
        let value = match kind {
            _ if kind == Immediate::Value as u32 => find()?.unwrap_or(0),
            _ if kind == Immediate::Have as u32 => u32::from(find()?.is_some()),
            _ => return Ok(false),
        };
        instruction[4..8].copy_from_slice(&value.to_le_bytes());
        Ok(true)
    }
}

/// What programs read of the operations of a ring that this kernel knows.
pub(super) fn ring_table(btf: &Btf) -> RingTable {
    let mut table = [[0; RING_ROW]; RING_OPCODES];
    let offset = |member: &str| btf.offset(member).and_then(|offset| u8::try_from(offset).ok());
    for row in RING_OPERATIONS {
        if let Some(reads) = RingReads::of(row, &offset) {
            table[usize::from(row.opcode)] = reads.bytes();
        }
    }
    table
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, RelocateError> {
    value.ok_or_else(|| RelocateError::MissingMember(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use agent_common::immediate;

    use super::*;

    fn facts() -> Facts {
        let mut values = vec![None; KERNEL_FACTS.len()];
        values[fact::TASK_TGID as usize] = Some(1268);
        Facts { values, rdonly_cast: Some(77) }
    }

    fn instruction(code: u8, registers: u8, immediate: u32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [code, registers, 0, 0, a, b, c, d]
    }

    #[test]
    fn an_instruction_gets_its_fact() {
        let cases = [
            (instruction(SUB64_IMM, 3, immediate(Immediate::Value, fact::TASK_TGID) as u32), Some(1268)),
            (instruction(ADD64_IMM, 3, immediate(Immediate::Value, fact::TASK_TGID) as u32), Some(1268)),
            (instruction(MOV64_IMM, 3, immediate(Immediate::Have, fact::TASK_TGID) as u32), Some(1)),
            (instruction(MOV64_IMM, 3, immediate(Immediate::Have, fact::ID_FILE) as u32), Some(0)),
            (instruction(ADD64_IMM, 3, 12), None),
            (instruction(0x79, 3, immediate(Immediate::Value, fact::TASK_TGID) as u32), None),
        ];
        for (mut bytes, expected) in cases {
            let before = bytes;
            assert_eq!(facts().patch(&mut bytes).unwrap(), expected.is_some());
            match expected {
                Some(value) => assert_eq!(bytes[4..], u32::to_le_bytes(value)),
                None => assert_eq!(bytes, before),
            }
        }
    }

    #[test]
    fn the_kfunc_call_is_made_only_where_it_exists() {
        let mut bytes = instruction(CALL, 0, RDONLY_CAST);
        assert!(facts().patch(&mut bytes).unwrap());
        assert_eq!(bytes, instruction(CALL, 0x20, 77));
        let mut bytes = instruction(CALL, 0, RDONLY_CAST);
        assert!(!Facts { rdonly_cast: None, ..facts() }.patch(&mut bytes).unwrap());
    }

    #[test]
    fn an_atomic_add_fetches_only_where_the_kernel_can() {
        let mut bytes = instruction(ATOMIC64, 0x21, FETCHING[0]);
        assert!(facts().patch(&mut bytes).unwrap());
        assert_eq!(bytes, instruction(ATOMIC64, 0x21, 0));
        let mut able = facts();
        able.values[fact::ATOMIC_FETCH as usize] = Some(1);
        let mut bytes = instruction(ATOMIC64, 0x21, FETCHING[0]);
        assert!(!able.patch(&mut bytes).unwrap());
    }

    #[test]
    fn an_unknown_fact_is_refused() {
        let mut bytes = instruction(MOV64_IMM, 0, Immediate::Value as u32 | 0xffff);
        assert!(matches!(facts().patch(&mut bytes), Err(RelocateError::UnknownFact(0xffff))));
    }
}
