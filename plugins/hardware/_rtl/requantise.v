// Turns the sums of one processing element, row by row, into the numbers that the next layer reads.
//
//     value = saturate((sum + bias) * 2**-shift), rounded half up; a negative shift multiplies
//
// The sum with its bias wraps around at SUM_BITS, as the accumulator does. Without PER_ROW every row has SHIFT and no
// bias; with it row r has the word r of the file CONSTANTS (see ram.v): a signed shift of 8 bits above a bias of SUM_BITS bits.
// A value appears three cycles after its sum; `row` is then its row within the processing element.
module requantise #(
    parameter SUM_BITS = 32,
    parameter OUT_BITS = 16,
    parameter ROW_BITS = 4,
    parameter ROWS = 1 << ROW_BITS,
    // How far to the left the largest negative shift moves a sum.
    parameter LEFT = 0,
    parameter signed [7:0] SHIFT = 0,
    parameter PER_ROW = 0,
    parameter CONSTANTS = "",
    parameter integer NUMBER = 0
) (
    input wire clk,
    // Before the first row of a product.
    input wire start,
    input wire sum_valid,
    input wire signed [SUM_BITS-1:0] sum,
    output wire value_valid,
    output wire [ROW_BITS-1:0] row,
    output wire signed [OUT_BITS-1:0] value,
    // Rows of this product whose values have left.
    output reg [ROW_BITS:0] done
);
  // Moved to the left as far as any row needs, with a bit for the half that rounds; then only to the right.
  localparam WIDE = SUM_BITS + LEFT + 1 > OUT_BITS + 1 ? SUM_BITS + LEFT + 1 : OUT_BITS + 2;
  localparam AMOUNT_BITS = $clog2(SUM_BITS + LEFT + 2);
  localparam [31:0] MOST_LEFT = LEFT;
  localparam [OUT_BITS-1:0] LOWEST = {1'b1, {(OUT_BITS - 1) {1'b0}}};

  wire signed [7:0] shift;
  wire signed [SUM_BITS-1:0] bias;

  generate
    if (PER_ROW) begin : per_row
      // Sums come in the order of rows: the constants of the next one are read ahead.
      reg [ROW_BITS:0] at;
      wire [ROW_BITS:0] next = start ? {(ROW_BITS + 1) {1'b0}} : at + {{ROW_BITS{1'b0}}, sum_valid};
      wire [SUM_BITS+7:0] word;
      always @(posedge clk) at <= next;
      ram #(
          .WIDTH(SUM_BITS + 8),
          .DEPTH_BITS(ROW_BITS),
          .WORDS(ROWS),
          .PRELOADED(1),
          .INIT(CONSTANTS),
          .NUMBER(NUMBER)
      ) constants (
          .clk(clk),
          .write(1'b0),
          .write_address({ROW_BITS{1'b0}}),
          .write_data({(SUM_BITS + 8) {1'b0}}),
          .read(1'b1),
          .read_address(next[ROW_BITS-1:0]),
          .read_data(word)
      );
      assign shift = word[SUM_BITS+:8];
      assign bias = word[SUM_BITS-1:0];
    end else begin : common
      assign shift = SHIFT;
      assign bias = 0;
    end
  endgenerate

  reg signed [SUM_BITS-1:0] total;
  reg [AMOUNT_BITS-1:0] amount;
  reg signed [WIDE-1:0] moved;
  reg signed [OUT_BITS-1:0] saturated;
  reg [2:0] valid;

  wire signed [WIDE-1:0] wide = {{(WIDE - SUM_BITS) {total[SUM_BITS-1]}}, total};
  wire signed [WIDE-1:0] doubled = wide <<< (LEFT + 1);
  wire [7:0] right = shift + MOST_LEFT[7:0];
  wire unused = &{1'b0, right};

  // Half up is one more in the bit behind the point; the sum is as wide as the result and a bit. What lies above is
  // looked at beside it: if it is more than the sign, no carry changes that.
  wire [OUT_BITS+1:0] up = {moved[OUT_BITS], moved[OUT_BITS:0]} + 1'b1;
  wire unused_half = up[0];
  wire fits = &moved[WIDE-1:OUT_BITS] || ~|moved[WIDE-1:OUT_BITS];
  wire carries = up[OUT_BITS+1] != up[OUT_BITS];

  assign value_valid = valid[2];
  assign value = saturated;
  assign row = done[ROW_BITS-1:0];

  always @(posedge clk) begin
    total <= sum + bias;
    amount <= right[AMOUNT_BITS-1:0];
    moved <= doubled >>> amount;
    saturated <= fits && !carries ? up[OUT_BITS:1] : moved[WIDE-1] ? LOWEST : ~LOWEST;
    valid <= start ? 3'b0 : {valid[1:0], sum_valid};
    if (start) done <= 0;
    else if (value_valid) done <= done + 1'b1;
  end
endmodule
