//! What turns the lists of [`crate::table`] into enums, a decoder and descriptions.

/// Makes [`crate::table::HostCall`] out of the list of calls.
macro_rules! host_calls {
    (@debug debug) => { true };
    (@debug any) => { false };
    ($(
        #[doc = $text:literal]
        $number:literal $name:ident = $upper:literal, $phase:literal, $kind:ident,
        ($($arg:ident: $type:ident = $arg_text:literal),*) -> ($($result:ident: $unit:literal = $result_text:literal),*);
    )*) => {
        /// A host call, decoded: which one, and what the caller claims.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum HostCall {
            $(
                #[doc = $text]
                $name {
                    $(#[doc = $arg_text] $arg: claim::$type,)*
                },
            )*
        }

        impl HostCall {
            /// Every call, described.
            pub const TABLE: &'static [CallInfo] = &[$(CallInfo {
                number: $number,
                name: $upper,
                phase: $phase,
                debug: host_calls!(@debug $kind),
                text: $text,
                arguments: &[$(FieldInfo { name: stringify!($arg), unit: claim::$type::UNIT, text: $arg_text }),*],
                results: &[$(FieldInfo { name: stringify!($result), unit: $unit, text: $result_text }),*],
            }),*];

            /// The call that x0 to x7 stand for; nothing if x0 names none.
            #[must_use]
            pub fn decode(x: [u64; 8]) -> Option<Self> {
                let [function, arguments @ ..] = x;
                #[expect(unused_mut, unused_variables, reason = "a call without arguments takes none")]
                match function.checked_sub(FUNCTION_BASE)? {
                    $($number => {
                        let mut words = arguments.into_iter();
                        Some(Self::$name { $($arg: claim::$type(words.next().unwrap_or(0)),)* })
                    })*
                    _ => None,
                }
            }

            /// x0 to x7 that stand for the call.
            #[must_use]
            pub fn encode(self) -> [u64; 8] {
                let mut x = [0; 8];
                let mut words = x.iter_mut();
                let mut put = |value| {
                    if let Some(word) = words.next() {
                        *word = value;
                    }
                };
                match self {
                    $(Self::$name { $($arg),* } => {
                        put(FUNCTION_BASE + $number);
                        $(put($arg.0);)*
                    })*
                }
                x
            }

            /// The number of the call.
            #[must_use]
            pub const fn number(&self) -> u64 {
                match self {
                    $(Self::$name { .. } => $number,)*
                }
            }

            /// Whether the call exists only where debug calls do.
            #[must_use]
            pub const fn is_debug(&self) -> bool {
                match self {
                    $(Self::$name { .. } => host_calls!(@debug $kind),)*
                }
            }
        }
    };
}

/// Makes [`crate::table::GuestFunction`] out of the list of guest calls.
macro_rules! guest_functions {
    ($(
        #[doc = $text:literal]
        $number:literal $(| $wide:literal)? $name:ident = $upper:literal, $kind:ident,
        ($($arg:ident: $type:ident = $arg_text:literal),*) -> ($($result:ident: $unit:literal = $result_text:literal),*);
    )*) => {
        /// A function that a guest may call: what is in W0. Those of PSCI and SMCCC have the names that the standards give them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum GuestFunction {
            $(#[doc = $text] $name,)*
        }

        impl GuestFunction {
            /// Every function, described.
            pub const TABLE: &'static [GuestCallInfo] = &[$(GuestCallInfo {
                numbers: &[$number $(, $wide)?],
                name: $upper,
                caller: stringify!($kind),
                text: $text,
                arguments: &[$(FieldInfo { name: stringify!($arg), unit: claim::$type::UNIT, text: $arg_text }),*],
                results: &[$(FieldInfo { name: stringify!($result), unit: $unit, text: $result_text }),*],
            }),*];

            /// The function with this number, of 32 or of 64 bits.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number $(| $wide)? => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its number: that of 64 bits, if it has two.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $(Self::$name => {
                        let [.., number] = [$number $(, $wide)?];
                        number
                    })*
                }
            }

            /// Whether only protected guests are offered it.
            #[must_use]
            pub const fn is_for_protected(self) -> bool {
                match self {
                    $(Self::$name => guest_functions!(@protected $kind),)*
                }
            }
        }
    };
    (@protected protected) => { true };
    (@protected any) => { false };
}

/// Makes an enum with numbers out of a list.
macro_rules! numbers {
    (
        $(#[$outer:meta])*
        $enum:ident: $(
            #[doc = $text:literal]
            $number:literal $name:ident = $upper:literal $(, $errno:literal)?;
        )*
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $enum {
            $(#[doc = $text] $name,)*
        }

        impl $enum {
            /// Every value, described.
            pub const TABLE: &'static [ValueInfo] = &[$(ValueInfo {
                number: $number,
                name: $upper,
                errno: concat!($($errno)?),
                text: $text,
            }),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The value with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $upper,)*
                }
            }
        }
    };
}

/// Makes constants out of a list.
macro_rules! limits {
    ($(#[doc = $text:literal] $name:ident: $type:ty = $value:literal;)*) => {
        $(#[doc = $text] pub const $name: $type = $value;)*

        /// Every limit, described.
        pub const TABLE: &[crate::describe::ValueInfo] = &[$(crate::describe::ValueInfo {
            number: $value,
            name: stringify!($name),
            errno: "",
            text: $text,
        }),*];
    };
}

pub(crate) use {guest_functions, host_calls, limits, numbers};
