//! A small eBPF assembler: the few instructions that steering needs, and labels.
//!
//! Encoding after Documentation/bpf/standardization/instruction-set.rst.

/// One eBPF instruction as the kernel reads it (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Insn {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register, `r0` to `r9`; `r10` is the frame pointer of the program's stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reg(pub(super) u8);

/// A place in the program that jumps name before it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Width of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    Word = 0x61,
    Half = 0x69,
    Byte = 0x71,
}

/// `BPF_PSEUDO_MAP_FD`: the immediate of a 64-bit load is a descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;

#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<Insn>,
    /// Where each label is, once it is placed.
    places: Vec<Option<usize>>,
    /// Jumps, and the label that each goes to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label means the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        debug_assert!(self.places[label.0].is_none(), "a label is one place");
        self.places[label.0] = Some(self.code.len());
    }

    /// Whether any jump goes to `label`: code that nothing reaches is refused by the verifier.
    pub(super) fn used(&self, label: Label) -> bool {
        self.jumps.iter().any(|&(_, l)| l == label)
    }

    pub(super) fn mov(&mut self, to: Reg, from: Reg) {
        self.emit(0xbf, to, from, 0, 0);
    }

    pub(super) fn mov_imm(&mut self, to: Reg, value: i32) {
        self.emit(0xb7, to, Reg(0), 0, value);
    }

    pub(super) fn add_imm(&mut self, to: Reg, value: i32) {
        self.emit(0x07, to, Reg(0), 0, value);
    }

    pub(super) fn and_imm(&mut self, to: Reg, value: i32) {
        self.emit(0x57, to, Reg(0), 0, value);
    }

    /// `to = *(base + offset)`, in the byte order of the machine.
    pub(super) fn load(&mut self, width: Width, to: Reg, base: Reg, offset: i16) {
        self.emit(width as u8, to, base, offset, 0);
    }

    /// `*(base + offset) = from`, the low 32 bits.
    pub(super) fn store_word(&mut self, base: Reg, offset: i16, from: Reg) {
        self.emit(0x63, base, from, offset, 0);
    }

    /// `*(base + offset) += value` of 32 bits, atomically.
    pub(super) fn atomic_add_word(&mut self, base: Reg, offset: i16, value: Reg) {
        self.emit(0xc3, base, value, offset, 0);
    }

    /// `*(base + offset) += value` of 64 bits, atomically.
    pub(super) fn atomic_add_double(&mut self, base: Reg, offset: i16, value: Reg) {
        self.emit(0xdb, base, value, offset, 0);
    }

    pub(super) fn load_map(&mut self, to: Reg, map_fd: i32) {
        self.emit(0x18, to, Reg(PSEUDO_MAP_FD), 0, map_fd);
        self.emit(0, Reg(0), Reg(0), 0, 0);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.branch(0x05, Reg(0), Reg(0), 0, label);
    }

    /// Jumps when the low 32 bits equal `value`.
    pub(super) fn jump_eq(&mut self, reg: Reg, value: u32, label: Label) {
        self.branch(0x16, reg, Reg(0), value as i32, label);
    }

    /// Jumps when the low 32 bits differ from `value`.
    pub(super) fn jump_ne(&mut self, reg: Reg, value: u32, label: Label) {
        self.branch(0x56, reg, Reg(0), value as i32, label);
    }

    /// Jumps when all 64 bits are 0: a null pointer.
    pub(super) fn jump_null(&mut self, reg: Reg, label: Label) {
        self.branch(0x15, reg, Reg(0), 0, label);
    }

    /// Jumps when the low 32 bits, signed, are at most `value`.
    pub(super) fn jump_at_most(&mut self, reg: Reg, value: i32, label: Label) {
        self.branch(0xd6, reg, Reg(0), value, label);
    }

    /// Jumps when `reg > other`, all 64 bits, unsigned.
    pub(super) fn jump_gt(&mut self, reg: Reg, other: Reg, label: Label) {
        self.branch(0x2d, reg, other, 0, label);
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.emit(0x85, Reg(0), Reg(0), 0, helper);
    }

    pub(super) fn exit(&mut self) {
        self.emit(0x95, Reg(0), Reg(0), 0, 0);
    }

    /// The program, with every jump resolved.
    pub(super) fn finish(mut self) -> Vec<Insn> {
        for &(at, label) in &self.jumps {
            let to = self.places[label.0].expect("every label that is jumped to is placed");
            self.code[at].offset = i16::try_from(to as i64 - at as i64 - 1).expect("programs are far below 32k long");
        }
        self.code
    }

    fn branch(&mut self, code: u8, a: Reg, b: Reg, immediate: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(code, a, b, 0, immediate);
    }

    fn emit(&mut self, code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        self.code.push(Insn { code, registers: to.0 | from.0 << 4, offset, immediate });
    }
}
