//! From the config and the pools of backends to what the packet path shall do. Pure.

use crate::{
    config::{self, Config},
    datapath::{DesiredBackend, DesiredService, InterfaceSettings, Settings},
    health::pool::{Pool, Share},
};
use lb_common::service::ServiceKey;

use super::health::weighted_twin;

/// Where and how large the packet path shall be.
pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        pin_dir: config.agent.pin_dir.clone(),
        tables: config.tables,
        interfaces: config
            .interfaces
            .iter()
            .map(|interface| InterfaceSettings { name: interface.name.clone(), mode: interface.mode })
            .collect(),
    }
}

/// The services with the shares that their pools give.
/// `limit` gives the most conns of the backend at a place, 0 for none.
pub(super) fn services(config: &Config, pools: &[Pool], limit: &dyn Fn(usize, usize) -> u32) -> Vec<DesiredService> {
    let backend = |backend: &config::Backend, share: &Share, max_conn| DesiredBackend {
        addr: (*backend.address.ip()).into(),
        port: backend.address.port(),
        weight: share.weight,
        drain: share.drain,
        down: share.down,
        max_conn,
    };
    let service = |(at, (service, pool)): (usize, (&config::Service, &Pool))| {
        let shares = pool.shares();
        DesiredService {
            name: service.name.clone(),
            listen: ServiceKey::tcp((*service.listen.ip()).into(), service.listen.port()),
            scheduler: if shares.weighted_twin { weighted_twin(service.scheduler) } else { service.scheduler },
            no_conn: service.no_conn,
            no_backend: service.no_backend,
            on_down: service.on_down,
            backends: (0..)
                .zip(service.backends.iter().zip(&shares.backends))
                .map(|(place, (member, share))| backend(member, share, limit(at, place)))
                .collect(),
        }
    };
    config.services.iter().zip(pools).enumerate().map(service).collect()
}
