//! The types a field, an event parameter or a literal can have, and how their values print.
//!
//! Names follow what the kernel and Falco's event table call them. This file says nothing about operators;
//! which operator a type accepts is in `compile`.

/// Type of a field or event parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Type {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// Text, a byte sequence (Falco's CHARBUF).
    Text,
    /// Bytes that are not text (BYTEBUF).
    Bytes,
    /// A descriptor number, or a negative errno.
    Fd,
    Fd32,
    /// A result: negative errno or a number.
    Errno,
    Pid,
    Pid32,
    /// A path relative to the working directory (FSPATH).
    FsPath,
    /// A path relative to a directory descriptor (FSRELPATH).
    FsRelPath,
    SyscallId,
    SigType,
    SigSet,
    RelTime,
    AbsTime,
    Port,
    L4Proto,
    SockFamily,
    Bool,
    IpV4,
    IpV6,
    Ip,
    IpV4Net,
    IpV6Net,
    Net,
    Double,
    Uid,
    Gid,
    SockAddr,
    SockTuple,
    FdList,
    Flags8,
    Flags16,
    Flags32,
    EnumFlags8,
    EnumFlags16,
    EnumFlags32,
    Mode,
    /// Bound to a type when the event is known (`evt.rawarg`).
    Dyn,
    TextArray,
    TextPairArray,
}

/// The way values of a type are held and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Text kinds.
    Text,
    /// Byte buffers.
    Bytes,
    /// Signed numbers of so many bits.
    Signed(u32),
    /// Unsigned numbers of so many bits.
    Unsigned(u32),
    /// True or false.
    Bool,
    /// Floating point.
    Double,
    /// An address.
    Ip,
    /// A network.
    Net,
    /// Not comparable: only `exists` makes sense.
    Opaque,
}

impl Type {
    /// How values of this type are held and compared.
    pub const fn class(self) -> Class {
        match self {
            Self::I8 => Class::Signed(8),
            Self::I16 => Class::Signed(16),
            Self::I32 | Self::Fd32 | Self::Pid32 => Class::Signed(32),
            Self::I64 | Self::Fd | Self::Errno | Self::Pid => Class::Signed(64),
            Self::U8 | Self::Flags8 | Self::EnumFlags8 | Self::SigType => Class::Unsigned(8),
            Self::U16 | Self::Flags16 | Self::EnumFlags16 | Self::Port | Self::SyscallId => Class::Unsigned(16),
            Self::U32 | Self::Flags32 | Self::EnumFlags32 | Self::Mode | Self::SigSet => Class::Unsigned(32),
            Self::U64 | Self::RelTime | Self::AbsTime => Class::Unsigned(64),
            Self::Text | Self::FsPath | Self::FsRelPath => Class::Text,
            Self::Bytes => Class::Bytes,
            Self::Bool => Class::Bool,
            Self::Double => Class::Double,
            Self::Ip | Self::IpV4 | Self::IpV6 => Class::Ip,
            Self::Net | Self::IpV4Net | Self::IpV6Net => Class::Net,
            Self::L4Proto
            | Self::SockFamily
            | Self::Uid
            | Self::Gid
            | Self::SockAddr
            | Self::SockTuple
            | Self::FdList
            | Self::Dyn
            | Self::TextArray
            | Self::TextPairArray => Class::Opaque,
        }
    }

    /// The type with Falco's name `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|ty| ty.name() == name)
    }

    /// Falco's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "INT8",
            Self::I16 => "INT16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::Text => "CHARBUF",
            Self::Bytes => "BYTEBUF",
            Self::Fd => "FD",
            Self::Fd32 => "FD32",
            Self::Errno => "ERRNO",
            Self::Pid => "PID",
            Self::Pid32 => "PID32",
            Self::FsPath => "FSPATH",
            Self::FsRelPath => "FSRELPATH",
            Self::SyscallId => "SYSCALLID",
            Self::SigType => "SIGTYPE",
            Self::SigSet => "SIGSET",
            Self::RelTime => "RELTIME",
            Self::AbsTime => "ABSTIME",
            Self::Port => "PORT",
            Self::L4Proto => "L4PROTO",
            Self::SockFamily => "SOCKFAMILY",
            Self::Bool => "BOOL",
            Self::IpV4 => "IPV4ADDR",
            Self::IpV6 => "IPV6ADDR",
            Self::Ip => "IPADDR",
            Self::IpV4Net => "IPV4NET",
            Self::IpV6Net => "IPV6NET",
            Self::Net => "IPNET",
            Self::Double => "DOUBLE",
            Self::Uid => "UID",
            Self::Gid => "GID",
            Self::SockAddr => "SOCKADDR",
            Self::SockTuple => "SOCKTUPLE",
            Self::FdList => "FDLIST",
            Self::Flags8 => "FLAGS8",
            Self::Flags16 => "FLAGS16",
            Self::Flags32 => "FLAGS32",
            Self::EnumFlags8 => "ENUMFLAGS8",
            Self::EnumFlags16 => "ENUMFLAGS16",
            Self::EnumFlags32 => "ENUMFLAGS32",
            Self::Mode => "MODE",
            Self::Dyn => "DYN",
            Self::TextArray => "CHARBUFARRAY",
            Self::TextPairArray => "CHARBUF_PAIR_ARRAY",
        }
    }
}

/// How a number prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrintFormat {
    /// None given: numbers have no usable text.
    Na,
    /// Decimal.
    Dec,
    /// Upper-case hexadecimal without prefix.
    Hex,
    /// Octal.
    Oct,
    /// Decimal, at least nine digits.
    Padded,
    /// Decimal; the number names something.
    Id,
}

impl PrintFormat {
    /// The format with Falco's name `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "NA" | "DIR" => Self::Na,
            "DEC" => Self::Dec,
            "HEX" => Self::Hex,
            "OCT" => Self::Oct,
            "10_PADDED_DEC" => Self::Padded,
            "ID" => Self::Id,
            _ => return None,
        })
    }
}

const ALL: [Type; 48] = [
    Type::I8,
    Type::I16,
    Type::I32,
    Type::I64,
    Type::U8,
    Type::U16,
    Type::U32,
    Type::U64,
    Type::Text,
    Type::Bytes,
    Type::Fd,
    Type::Fd32,
    Type::Errno,
    Type::Pid,
    Type::Pid32,
    Type::FsPath,
    Type::FsRelPath,
    Type::SyscallId,
    Type::SigType,
    Type::SigSet,
    Type::RelTime,
    Type::AbsTime,
    Type::Port,
    Type::L4Proto,
    Type::SockFamily,
    Type::Bool,
    Type::IpV4,
    Type::IpV6,
    Type::Ip,
    Type::IpV4Net,
    Type::IpV6Net,
    Type::Net,
    Type::Double,
    Type::Uid,
    Type::Gid,
    Type::SockAddr,
    Type::SockTuple,
    Type::FdList,
    Type::Flags8,
    Type::Flags16,
    Type::Flags32,
    Type::EnumFlags8,
    Type::EnumFlags16,
    Type::EnumFlags32,
    Type::Mode,
    Type::Dyn,
    Type::TextArray,
    Type::TextPairArray,
];
