//! What holds for either kind of database: files that are no database, damage, kills, crashes.

mod crash;
mod damage;
mod files;
mod forged;
mod golden;
mod growth;
mod kill;
mod migrate;
mod random_damage;
mod shown;
mod stored;
