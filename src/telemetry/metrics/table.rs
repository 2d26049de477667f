//! Tables of meters: each has a line with its field, its type, how it begins, its name and its help.

/// Defines a struct of meters, and `registered`, which makes and registers all of them. `by`: the method of
/// [`Book`](super::book::Book) that registers them.
macro_rules! meters {
    (
        by $add:ident;
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($field:ident: $type:ty = $begin:expr, $metric:literal, $help:literal;)+
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($field: $type,)+
        }

        impl $name {
            /// Makes the meters, and registers each.
            pub(super) fn registered(book: &mut $crate::telemetry::metrics::book::Book) -> Self {
                let meters = Self { $($field: $begin,)+ };
                $(book.$add($metric, $help, meters.$field.clone());)+
                meters
            }
        }
    };
}
pub(super) use meters;
