// value = saturate(in * 2**-SHIFT), rounded half up; a negative SHIFT multiplies. No register.
module rescale #(
    parameter IN_BITS = 32,
    parameter OUT_BITS = 16,
    parameter integer SHIFT = 0
) (
    input wire signed [IN_BITS-1:0] in,
    output wire signed [OUT_BITS-1:0] value
);
  localparam RIGHT = SHIFT > 0 ? SHIFT : 0;
  localparam LEFT = SHIFT < 0 ? -SHIFT : 0;
  localparam SHIFTED = IN_BITS + 2 + LEFT;
  localparam WIDE = SHIFTED > OUT_BITS ? SHIFTED : OUT_BITS + 1;
  localparam signed [WIDE-1:0] HIGHEST = {{(WIDE - OUT_BITS + 1) {1'b0}}, {(OUT_BITS - 1) {1'b1}}};
  localparam signed [WIDE-1:0] LOWEST = -HIGHEST - 1;
  localparam signed [WIDE-1:0] ONE = 1;
  localparam signed [WIDE-1:0] HALF = RIGHT > 0 ? ONE <<< (RIGHT - 1) : 0;

  wire signed [WIDE-1:0] wide = {{(WIDE - IN_BITS) {in[IN_BITS-1]}}, in};
  wire signed [WIDE-1:0] biased = wide + HALF;
  wire signed [WIDE-1:0] moved = RIGHT > 0 ? biased >>> RIGHT : wide <<< LEFT;

  assign value = moved > HIGHEST ? HIGHEST[OUT_BITS-1:0] : moved < LOWEST ? LOWEST[OUT_BITS-1:0] : moved[OUT_BITS-1:0];
endmodule
