//! `SERVICE_STATS`: what the programs count of each service.

use anyhow::{Context, Result};
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use xlb_common::abi::{COUNTED_SERVICES_MAX, OTHER_SERVICES, ServiceStats, stats_index};

use crate::maps::live::open_map;
use crate::maps::pins::PinDirectory;
use crate::maps::raw::Raw;

/// The map.
pub struct Stats(PerCpuArray<MapData, Raw<ServiceStats>>);

/// The numbers of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNumbers {
    /// Those of the services that have their own, by `namespace/name:port/protocol`.
    pub own: Vec<(String, ServiceStats)>,
    /// Those of all others together.
    pub others: ServiceStats,
}

impl Stats {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pins: &PinDirectory) -> Result<Self> {
        Ok(Self(open_map(pins, "SERVICE_STATS")?.try_into()?))
    }

    /// Lets an id begin at zero, as another service gets it. No frontend leads to it yet; of earlier flows there may be
    /// replies, and one that is counted at this very moment writes old numbers back. After the first writing none finds its
    /// generation, so that the second one stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(&mut self, service: u32) -> Result<()> {
        if service >= COUNTED_SERVICES_MAX {
            return Ok(());
        }
        let generation = self.sum(stats_index(service))?.generation.wrapping_add(1);
        let zero = Raw(ServiceStats { generation, ..ServiceStats::default() });
        let cpus = nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")?;
        for _ in 0..2 {
            let zeros = PerCpuValues::try_from(vec![zero; cpus])?;
            self.0.set(service, zeros, 0).context("writing SERVICE_STATS")?;
        }
        Ok(())
    }

    /// The numbers of a service that has its own among the first `counted` ones.
    #[must_use]
    pub fn of(&self, service: u32, counted: u32) -> Option<ServiceStats> {
        if service >= counted.min(COUNTED_SERVICES_MAX) {
            return None;
        }
        self.sum(stats_index(service)).ok()
    }

    /// The numbers of all services that have none of their own.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn of_others(&self) -> Result<ServiceStats> {
        self.sum(OTHER_SERVICES)
    }

    fn sum(&self, index: u16) -> Result<ServiceStats> {
        let values = self.0.get(&index.into(), 0).context("reading SERVICE_STATS")?;
        Ok(values.iter().fold(ServiceStats::default(), |sum, Raw(of_cpu)| sum.plus(*of_cpu)))
    }
}
