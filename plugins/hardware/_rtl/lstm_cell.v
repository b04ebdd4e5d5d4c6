// The element-wise part of one LSTM unit per cycle: gates and state in, state and output out, eight cycles later.
//
//     c = saturate(f * c + i * g)   rounded half up once     h = saturate(o * tanh(c))   rounded half up
//
// Gates come as places in the tables of sigmoid and tanh, PLACE_BITS wide and signed; what is looked up has BITS bits and
// stands for multiples of 2**-(BITS - 1). The state stands for multiples of 2**STATE_EXPONENT, h for multiples of
// 2**H_EXPONENT; `exact` is o * tanh(c) before it is rounded, multiples of 2**-(2 * BITS - 2).
module lstm_cell #(
    parameter BITS = 16,
    parameter PLACE_BITS = 12,
    // Table entries per unit are 2**PER_UNIT_BITS.
    parameter PER_UNIT_BITS = 8,
    parameter integer STATE_EXPONENT = -12,
    parameter integer H_EXPONENT = -15,
    parameter UNIT_BITS = 4,
    parameter UNITS = 1 << UNIT_BITS,
    parameter SIGMOID = "mem/sigmoid.hex",
    parameter TANH = "mem/tanh.hex"
) (
    input wire clk,
    // Whether the state before this step is zero.
    input wire fresh,
    input wire valid,
    input wire [UNIT_BITS-1:0] unit,
    input wire [PLACE_BITS-1:0] gate_i,
    input wire [PLACE_BITS-1:0] gate_f,
    input wire [PLACE_BITS-1:0] gate_g,
    input wire [PLACE_BITS-1:0] gate_o,
    output wire signed [BITS-1:0] h,
    output wire signed [2*BITS-1:0] exact
);
  localparam integer FRACTION = BITS - 1;
  // f * c and i * g meet at the finer of their two units.
  localparam integer OF_STATE = STATE_EXPONENT - FRACTION;
  localparam integer FINE = OF_STATE < -2 * FRACTION ? OF_STATE : -2 * FRACTION;
  localparam UP_C = OF_STATE - FINE;
  localparam UP_G = -2 * FRACTION - FINE;
  localparam TOTAL_BITS = 2 * BITS + UP_C + UP_G + 1;

  wire signed [BITS-1:0] sigmoid_i, sigmoid_f, sigmoid_o, tanh_g, tanh_c, old;
  reg [UNIT_BITS-1:0] unit_1, unit_2, unit_3;
  reg valid_1, valid_2, valid_3, fresh_1;
  reg signed [BITS-1:0] o_2, o_3, o_4, o_5, o_6, state, h_8;
  reg signed [2*BITS-1:0] of_c, of_g, product, exact_8;
  reg signed [TOTAL_BITS-1:0] total;
  reg [PLACE_BITS-1:0] place;
  wire signed [BITS-1:0] state_next, h_next;
  wire signed [PLACE_BITS-1:0] place_next;
  wire signed [TOTAL_BITS-1:0] wide_c = {{(TOTAL_BITS - 2 * BITS) {of_c[2*BITS-1]}}, of_c};
  wire signed [TOTAL_BITS-1:0] wide_g = {{(TOTAL_BITS - 2 * BITS) {of_g[2*BITS-1]}}, of_g};

  lookup #(.BITS(BITS), .PLACE_BITS(PLACE_BITS), .INIT(SIGMOID)) of_i (.clk(clk), .place(gate_i), .value(sigmoid_i));
  lookup #(.BITS(BITS), .PLACE_BITS(PLACE_BITS), .INIT(SIGMOID)) of_f (.clk(clk), .place(gate_f), .value(sigmoid_f));
  lookup #(.BITS(BITS), .PLACE_BITS(PLACE_BITS), .INIT(SIGMOID)) of_o (.clk(clk), .place(gate_o), .value(sigmoid_o));
  lookup #(.BITS(BITS), .PLACE_BITS(PLACE_BITS), .INIT(TANH)) of_candidate (.clk(clk), .place(gate_g), .value(tanh_g));
  lookup #(.BITS(BITS), .PLACE_BITS(PLACE_BITS), .INIT(TANH)) of_the_state (.clk(clk), .place(place), .value(tanh_c));

  ram #(
      .WIDTH(BITS),
      .DEPTH_BITS(UNIT_BITS),
      .WORDS(UNITS)
  ) states (
      .clk(clk),
      .write(valid_3),
      .write_address(unit_3),
      .write_data(state_next),
      .read(valid),
      .read_address(unit),
      .read_data(old)
  );

  rescale #(.IN_BITS(TOTAL_BITS), .OUT_BITS(BITS), .SHIFT(STATE_EXPONENT - FINE)) to_state (
      .in(total), .value(state_next)
  );
  rescale #(.IN_BITS(BITS), .OUT_BITS(PLACE_BITS), .SHIFT(-(PER_UNIT_BITS + STATE_EXPONENT))) to_place (
      .in(state), .value(place_next)
  );
  rescale #(.IN_BITS(2 * BITS), .OUT_BITS(BITS), .SHIFT(H_EXPONENT + 2 * FRACTION)) to_h (
      .in(product), .value(h_next)
  );

  assign h = h_8;
  assign exact = exact_8;

  always @(posedge clk) begin
    // 1: tables and the old state
    valid_1 <= valid;
    unit_1 <= unit;
    fresh_1 <= fresh;
    // 2: products
    valid_2 <= valid_1;
    unit_2 <= unit_1;
    if (fresh_1) of_c <= 0;
    else of_c <= sigmoid_f * old;
    of_g <= sigmoid_i * tanh_g;
    o_2 <= sigmoid_o;
    // 3: their sum
    valid_3 <= valid_2;
    unit_3 <= unit_2;
    total <= (wide_c <<< UP_C) + (wide_g <<< UP_G);
    o_3 <= o_2;
    // 4: the new state
    state <= state_next;
    o_4 <= o_3;
    // 5: its place in the table, 6: the table
    place <= place_next;
    o_5 <= o_4;
    o_6 <= o_5;
    // 7: the output, exactly, 8: rounded
    product <= o_6 * tanh_c;
    h_8 <= h_next;
    exact_8 <= product;
  end
endmodule
