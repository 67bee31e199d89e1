//! Several things read at once, so that whoever asks learns of all that is wrong with them and not only of the first.

/// A fault that can be told together with another one.
pub trait Join {
    /// Both as one.
    #[must_use]
    fn join(self, other: Self) -> Self;
}

/// A tuple of results.
pub trait Together {
    /// What they hold where all are good.
    type All;
    /// What is told of those that are not.
    type Fault;

    /// All that they hold, or everything that is wrong.
    fn together(self) -> Result<Self::All, Self::Fault>;
}

/// Reads several things, as in `let (host, reason) = all((host_id(host), reason(text)))?`.
///
/// # Errors
/// Everything that is wrong, joined.
pub fn all<T: Together>(results: T) -> Result<T::All, T::Fault> {
    results.together()
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => { $(
        impl<Fault: Join, $($name),+> Together for ($(Result<$name, Fault>,)+) {
            type All = ($($name,)+);
            type Fault = Fault;

            #[allow(non_snake_case)]
            fn together(self) -> Result<Self::All, Fault> {
                match self {
                    ($(Ok($name),)+) => Ok(($($name,)+)),
                    ($($name,)+) => {
                        let faults = [$($name.err()),+].into_iter().flatten();
                        Err(faults.reduce(Fault::join).expect("one of them is not good"))
                    }
                }
            }
        }
    )* };
}

tuples! {
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Join for Vec<u8> {
        fn join(mut self, other: Self) -> Self {
            self.extend(other);
            self
        }
    }

    #[test]
    fn what_is_good_is_given_and_what_is_not_is_told_in_order() {
        let good = |text: &'static str| Ok::<_, Vec<u8>>(text);
        assert_eq!(all((good("a"), Ok(1))), Ok(("a", 1)));
        assert_eq!(all((Err::<(), _>(vec![1]), good("a"), Err::<u8, _>(vec![2]))), Err(vec![1, 2]));
    }
}
