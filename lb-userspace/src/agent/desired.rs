//! From the config and the operator's overrides to what the packet path shall do. Pure.

use crate::{
    config::{self, Config},
    datapath::{DesiredBackend, DesiredService, InterfaceSettings, Settings},
};
use lb_common::service::ServiceKey;

use super::overrides::Overrides;

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

/// The services with what the operator changed at run time.
pub(super) fn services(config: &Config, overrides: &Overrides) -> Vec<DesiredService> {
    let backend = |service: &config::Service, backend: &config::Backend| {
        let change = overrides.get(&service.name, backend.address);
        DesiredBackend {
            addr: (*backend.address.ip()).into(),
            port: backend.address.port(),
            weight: change.weight.unwrap_or(backend.weight),
            drain: change.drain,
            down: false,
        }
    };
    config
        .services
        .iter()
        .map(|service| DesiredService {
            name: service.name.clone(),
            listen: ServiceKey::tcp((*service.listen.ip()).into(), service.listen.port()),
            scheduler: service.scheduler,
            no_conn: service.no_conn,
            on_down: service.on_down,
            backends: service.backends.iter().map(|b| backend(service, b)).collect(),
        })
        .collect()
}
