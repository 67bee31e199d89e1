//! Who has every right, and whether the first password is still that.

use std::{fs, sync::Arc};

use super::Finding;
use crate::{
    access::{Overloaded, User},
    app::App,
    error::Error,
    users::FIRST_USER,
};

const FIRST_PASSWORD: &str = "users.first_password";
const ADMINS: &str = "users.admins";

pub(super) async fn look(app: &Arc<App>) -> Result<Vec<Finding>, Error> {
    Ok(vec![on_first_password(app).await?, on_admins(&app.store.users().await?)])
}

async fn on_first_password(app: &Arc<App>) -> Result<Finding, Error> {
    let path = app.config.admin_password();
    let file = path.display().to_string();
    let Ok(password) = fs::read_to_string(&path) else {
        return Ok(Finding::ok(FIRST_PASSWORD, "", "the first password lies in no file"));
    };
    let known = app.store.user_by_name(FIRST_USER).await?;
    let Some((_, hash)) = known else {
        return Ok(Finding::ok(FIRST_PASSWORD, file, format!("there is no user `{FIRST_USER}` any more")));
    };
    let unchanged = app.verifier.hasher.verify(password.trim().to_owned(), Some(hash)).await;
    Ok(match unchanged.map_err(|Overloaded| Error::Overloaded)? {
        false => Finding::ok(FIRST_PASSWORD, file, "the password in it is no longer used"),
        true => Finding::warn(
            FIRST_PASSWORD,
            file,
            format!("the first password of `{FIRST_USER}` is in force, and lies in its file"),
            "whoever reads that file, or a backup of it, has every right",
            format!("set another with `belay user password {FIRST_USER}`, and remove the file"),
        ),
    })
}

fn on_admins(users: &[User]) -> Finding {
    let admins: Vec<_> =
        users.iter().filter(|user| user.rights.is_admin()).map(|user| &user.name[..]).collect();
    match admins[..] {
        [only] => Finding::warn(
            ADMINS,
            only,
            "only one user has the role ADMIN",
            "when its password is lost nobody can manage users; and what several people do in one name is nobody's in the \
             audit trail",
            "give each person who manages users a user with ADMIN",
        ),
        _ => Finding::ok(ADMINS, "", format!("users with ADMIN: {}", admins.len())),
    }
}
