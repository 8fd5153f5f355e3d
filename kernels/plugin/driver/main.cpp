// Drives the plugin library the way TensorRT does, through the virtual methods of TensorRT's own
// headers, with the host build of the kernels behind it: no GPU, no TensorRT.
//
//   driver       runs every check; exit 0 and a last line "N checks passed", or exit 1
//
// What it cannot show: that TensorRT calls the methods in this order, with these arguments.
#include "kit.h"

int main() {
  setLoggerFinder(&ndp_driver::finder);
  ndp_driver::build_phase();
  ndp_driver::run_phase();
  setLoggerFinder(nullptr);
  std::printf("TensorRT %d.%d: %d checks passed\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR,
              ndp_driver::checks);
  return 0;
}
